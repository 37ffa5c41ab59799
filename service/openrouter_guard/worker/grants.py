"""What ``wait()`` has let through: the next call of that thread, or that task, is not refused its start."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextvars import ContextVar
from time import monotonic
from typing import NamedTuple

from .lane import Lane

__all__ = ["is_held", "taken", "took"]

LASTS_S = 60.0
"""A start that was taken for a call which has not come until then is none any more."""


class _Grant(NamedTuple):
    lane: Lane
    until_s: float
    task: int

    def is_of(self, lane: Lane) -> bool:
        return self.lane is lane and self.until_s > monotonic()


_granted: ContextVar[list[_Grant]] = ContextVar("openrouter_guard_granted")
"""At most one. A list, for a call may be made in a copy of the context, such as that of ``asyncio.to_thread()``: who
uses the start up does so for all copies."""


def took(lane: Lane, permitted: Future[bool]) -> bool:
    """Note for the call to come whether a start was taken for it; always true."""
    is_taken = permitted.exception() is None and permitted.result()
    if not (is_taken and is_held(lane)):
        _granted.set([_Grant(lane, monotonic() + LASTS_S, _task())] if is_taken else [])
    return True


def is_held(lane: Lane) -> bool:
    """Whether this task has a start that no call has used: where it waits once more, it needs no other."""
    granted = _granted.get([])
    # Tasks that were created since have a copy of the context, and each needs a start of its own.
    return bool(granted) and granted[0].is_of(lane) and granted[0].task == _task()


def taken(lane: Lane) -> bool:
    """Use the start that was taken, if there is one."""
    granted = _granted.get([])
    if not granted or not granted[0].is_of(lane):
        return False
    granted.clear()
    return True


def _task() -> int:
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return id(task) if task is not None else threading.get_ident()
