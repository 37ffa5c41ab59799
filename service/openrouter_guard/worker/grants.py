"""What ``wait()`` has let through: the next call of that thread, or that task, is not refused for want of it."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextvars import ContextVar
from time import monotonic
from typing import NamedTuple

from .lane import Lane

__all__ = ["NOTHING", "Leave", "held", "permit", "taken", "took"]

LASTS_S = 60.0
"""A start that was taken for a call which has not come until then is none any more."""


class Leave(NamedTuple):
    """What a call to come needs, and who waited for it has.

    Attributes:
        is_start: One of this process' starts, while the fleet comes back.
        permit: The name of one of the fleet's permits, while half-open; empty if there is none.
    """

    is_start: bool = False
    permit: str = ""


NOTHING = Leave()


class _Grant(NamedTuple):
    leave: Leave
    lane: Lane
    until_s: float
    task: int

    def is_of(self, lane: Lane) -> bool:
        return self.lane is lane and self.until_s > monotonic()


_granted: ContextVar[list[_Grant]] = ContextVar("openrouter_guard_granted")
"""At most one. A list, for a call may be made in a copy of the context, such as that of ``asyncio.to_thread()``: who
uses it up does so for all copies."""


def took(lane: Lane, permitted: Future[Leave]) -> bool:
    """Note for the call to come what was taken for it, if anything; always true."""
    leave = NOTHING if permitted.exception() else permitted.result()
    if leave is NOTHING or leave is not held(lane):
        _granted.set([_Grant(leave, lane, monotonic() + LASTS_S, _task())] if any(leave) else [])
    return True


def held(lane: Lane) -> Leave:
    """What this task has that no call has used: where it waits once more, it needs no other."""
    granted = _granted.get([])
    # Tasks that were created since have a copy of the context, and each needs one of its own.
    is_own = granted and granted[0].is_of(lane) and granted[0].task == _task()
    return granted[0].leave if is_own else NOTHING


def taken(lane: Lane) -> bool:
    """Use the start that was taken, or the permit in its place, if there is one."""
    granted = _granted.get([])
    if not granted or not granted[0].is_of(lane):
        return False
    granted.clear()
    lane.use()
    return True


def permit(lane: Lane) -> str:
    """Use the permit that was taken; its name, or none if there is none any more."""
    granted = _granted.get([])
    if not granted or not granted[0].is_of(lane) or not lane.claim(granted[0].leave.permit):
        return ""
    return granted.pop().leave.permit


def _task() -> int:
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return id(task) if task is not None else threading.get_ident()
