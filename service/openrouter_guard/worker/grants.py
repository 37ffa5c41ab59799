"""Grants of ``wait()``: the next call of that thread or task is not refused."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextvars import ContextVar
from time import monotonic
from typing import NamedTuple

from .lane import Lane

__all__ = ["NOTHING", "Leave", "held", "permit", "taken", "took", "took_of"]

LASTS_S = 60.0
"""A grant expires if its call has not come by then."""


class Leave(NamedTuple):
    """The grant for a coming call.

    Attributes:
        is_start: Whether it is one of this process' starts, while the fleet comes back.
        permit: Name of one of the fleet's permits, while half-open; empty without one.
    """

    is_start: bool = False
    permit: str = ""


NOTHING = Leave()


class _Grant(NamedTuple):
    leave: Leave
    lane: Lane
    until: float
    task: int

    def is_of(self, lane: Lane) -> bool:
        return self.lane is lane and self.until > monotonic()


_granted: ContextVar[list[_Grant]] = ContextVar("openrouter_guard_granted")
"""At most one.

A list, because the call may be made in a copy of the context, such as that of ``asyncio.to_thread()``: using it up
affects all copies.
"""


def took_of(lane: Lane, permitted: Future[Leave]) -> bool:
    """Store the grant for the coming call, if any; always true."""
    return took(lane, NOTHING if permitted.exception() else permitted.result())


def took(lane: Lane, leave: Leave) -> bool:
    """Store the grant for the coming call, if any; always true."""
    if leave is NOTHING or leave is not held(lane):
        _granted.set([_Grant(leave, lane, monotonic() + LASTS_S, _task())] if any(leave) else [])
    return True


def held(lane: Lane) -> Leave:
    """Return this task's unused grant: if it waits once more, it needs no other."""
    granted = _granted.get([])
    # Tasks created since have a copy of the context, and each needs a grant of its own.
    is_own = granted and granted[0].is_of(lane) and granted[0].task == _task()
    return granted[0].leave if is_own else NOTHING


def taken(lane: Lane) -> bool:
    """Use the start, or the permit in its place, if there is one."""
    granted = _granted.get([])
    if not granted or not granted[0].is_of(lane):
        return False
    granted.clear()
    lane.use()
    return True


def permit(lane: Lane) -> str:
    """Use the permit; return its name, or none if it has expired."""
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
