"""What a process does with what runs in its background: forgets it in a forked child, and ends it before it ends."""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from typing import Protocol

__all__ = ["started", "watched"]

_EXIT_S = 1.0


class _Background(Protocol):
    def reset(self) -> None: ...
    def close(self, timeout_s: float) -> None: ...


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


def _after_fork() -> None:
    for background in list(_all):
        background.reset()


def _at_exit() -> None:
    for background in list(_all):
        background.close(_EXIT_S)


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
