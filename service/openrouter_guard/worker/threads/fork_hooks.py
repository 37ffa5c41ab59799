"""Handles the background in forks and at the end of the process."""

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

from .callers_thread import CallersThread
from .loop_thread import LoopThread

__all__ = ["flush_on_sigterm", "started", "watched"]

_EXIT_S = 1.0
_SIGTERM_S = 2.0
"""How long waiting results may delay the end, however many guards there are."""


class _Background(Protocol):
    def reset(self) -> None: ...
    def begin_close(self, timeout_s: float) -> LoopThread | CallersThread | None: ...
    def flush_if_started(self) -> Future[None] | None: ...


_all: weakref.WeakSet[_Background] = weakref.WeakSet()


def watched(background: _Background) -> None:
    """Reset *background* in every forked child, and close it when the process ends."""
    _all.add(background)


def started() -> None:
    """Note that something runs now.

    A child of ``multiprocessing`` ends without ``atexit``, so it needs another hook.
    """
    process = sys.modules.get("multiprocessing.process")
    if process is None or process.parent_process() is None:
        return
    from multiprocessing.util import Finalize

    Finalize(None, _at_exit, exitpriority=0)


def flush_on_sigterm(background: _Background) -> None:
    """On SIGTERM report the remaining results of *background*, and then handle the signal as before.

    One handler serves all guards, before the existing one. A handler installed later replaces it, and a process that
    ignores SIGTERM still does.

    Raises:
        ConfigurationError: In any thread but the main one, because Python allows signal handlers only there.
    """
    if threading.current_thread() is not threading.main_thread():
        raise ConfigurationError("flush_on_sigterm=True is for the main thread: make the guard there")
    _sigterm.flushed.add(background)
    _sigterm.install()


class _Sigterm:
    """The handler of this process, and the one it precedes."""

    def __init__(self) -> None:
        self.flushed: weakref.WeakSet[_Background] = weakref.WeakSet()
        self._before: Callable[[int, FrameType | None], Any] | int | None = None
        self._is_flushing = False

    def install(self) -> None:
        present = signal.getsignal(signal.SIGTERM)
        # A later handler may call ours, so calling it would never end. A handler in C, None here, cannot be called.
        has_room = self._before is None or present is signal.SIG_DFL
        if has_room and present not in (_on_sigterm, signal.SIG_IGN, None):
            self._before = present
            signal.signal(signal.SIGTERM, _on_sigterm)

    def flush(self) -> None:
        """Report the remaining results, unless that is under way: a second signal is urgent."""
        if self._is_flushing:
            return
        self._is_flushing = True
        try:
            flushes = [flush for each in list(self.flushed) if (flush := each.flush_if_started()) is not None]
            concurrent.futures.wait(flushes, _SIGTERM_S)
        finally:
            self._is_flushing = False

    def go_on(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal as if ours were not installed."""
        if callable(self._before):
            self._before(number, frame)
            return
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        # The first process of a container survives it, by the kernel's rule.
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
    until = time.monotonic() + _EXIT_S
    for thread in [background.begin_close(_EXIT_S) for background in list(_all)]:
        if thread is not None:
            thread.join(until - time.monotonic())


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
