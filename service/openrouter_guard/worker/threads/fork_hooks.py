"""What a process does with what runs in its background: forgets it in a forked child, and ends it before it ends."""

from __future__ import annotations

import atexit
import concurrent.futures
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from types import FrameType
from typing import Any, Protocol

from openrouter_guard.errors import ConfigurationError

from .loop_thread import LoopThread

__all__ = ["flush_on_sigterm", "started", "watched"]

_EXIT_S = 1.0
_SIGTERM_S = 2.0
"""How long what waits to be reported may hold up the end, however many guards there are."""


class _Background(Protocol):
    def reset(self) -> None: ...
    def begin_close(self, timeout_s: float) -> LoopThread | None: ...
    def flush_if_started(self) -> Future[None] | None: ...


_all: weakref.WeakSet[_Background] = weakref.WeakSet()


def watched(background: _Background) -> None:
    """Reset *background* in every child that is forked, and close it when the process ends."""
    _all.add(background)


def started() -> None:
    """Something runs now. A child of ``multiprocessing`` ends without ``atexit``, and has to be told otherwise."""
    process = sys.modules.get("multiprocessing.process")
    if process is None or process.parent_process() is None:
        return
    from multiprocessing.util import Finalize

    Finalize(None, _at_exit, exitpriority=0)


def flush_on_sigterm(background: _Background) -> None:
    """On SIGTERM report what is left of *background*, and then do what would have been done without this.

    One handler does it for all. It is put before the one that is there. One that is installed later replaces it, and
    a process that ignores SIGTERM goes on to ignore it.

    Raises:
        ConfigurationError: In any thread but the main one, for only there Python lets handlers be installed.
    """
    if threading.current_thread() is not threading.main_thread():
        raise ConfigurationError("flush_on_sigterm=True is for the main thread: make the guard there")
    _sigterm.flushed.add(background)
    _sigterm.install()


class _Sigterm:
    """The handler of this process, and what it was put before."""

    def __init__(self) -> None:
        self.flushed: weakref.WeakSet[_Background] = weakref.WeakSet()
        self._before: Callable[[int, FrameType | None], Any] | int | None = None
        self._is_flushing = False

    def install(self) -> None:
        present = signal.getsignal(signal.SIGTERM)
        # A later one may call ours: to call it in turn would have no end. One of C's, None here, cannot be called.
        has_room = self._before is None or present is signal.SIG_DFL
        if has_room and present not in (_on_sigterm, signal.SIG_IGN, None):
            self._before = present
            signal.signal(signal.SIGTERM, _on_sigterm)

    def flush(self) -> None:
        """Report what is left, unless that is being done: who sends a second signal is in a hurry."""
        if self._is_flushing:
            return
        self._is_flushing = True
        try:
            flushes = [flush for each in list(self.flushed) if (flush := each.flush_if_started()) is not None]
            concurrent.futures.wait(flushes, _SIGTERM_S)
        finally:
            self._is_flushing = False

    def go_on(self, number: int, frame: FrameType | None) -> None:
        """Do what would have been done without us."""
        if callable(self._before):
            self._before(number, frame)
            return
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        # The first process of a container outlives it, by the kernel's rule.
        signal.signal(number, _on_sigterm)


_sigterm = _Sigterm()


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    with suppress(Exception):
        _sigterm.flush()
    _sigterm.go_on(number, frame)


def _after_fork() -> None:
    for background in list(_all):
        background.reset()


def _at_exit() -> None:
    until_s = time.monotonic() + _EXIT_S
    for thread in [background.begin_close(_EXIT_S) for background in list(_all)]:
        if thread is not None:
            thread.join(until_s - time.monotonic())


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
