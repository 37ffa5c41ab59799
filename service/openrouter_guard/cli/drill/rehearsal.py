"""Forces a subject open, watches its workloads go and come back, and always clears up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from openrouter_guard.errors import ConfigurationError, OpenRouterGuardError
from openrouter_guard.rules.override import OVERRIDE_MOST_S

from .course import Course, Seen

__all__ = ["SPARE_S", "WHY", "Subject", "rehearse"]

WHY = "a drill"
SPARE_S = 15.0
"""How much longer the override is set than the drill needs it: one that is killed ends by itself."""
LOOK_S = 0.25
BACK_S = 300.0
"""How long to wait until all workloads are back."""
_TRIES = 5


class Subject(Protocol):
    """One scope, or one resource.

    Every method raises: StoreError, ClusterError: If Redis or the API server refuses or does not answer.
    """

    @property
    def name(self) -> str:
        """Return its name for people."""
        ...

    async def seen(self) -> Seen:
        """Return its paused workloads."""
        ...

    async def force(self, for_s: float) -> None:
        """Force it open for so many seconds.

        Raises:
            ConfigurationError: If the breaker is not closed, or an override stands.
        """
        ...

    async def release(self) -> bool:
        """End the override if it is still the drill's own; return whether it was."""
        ...


async def rehearse(subject: Subject, for_s: float, say: Callable[[str], None]) -> Course:
    """Carry a drill out.

    Args:
        subject: Is forced open.
        for_s: Seconds for which calls are refused.
        say: Is told what happens.

    Raises:
        ConfigurationError: If the drill cannot begin, would last too long, or the override could not be ended.
        StoreError: If Redis does not answer; the override is ended then.
        ClusterError: The same for the API server.
    """
    if for_s + SPARE_S > OVERRIDE_MOST_S:
        raise ConfigurationError("a drill lasts less than 30 days: write a shorter --for")
    course = Course(await subject.seen())
    if course.before.paused:
        raise ConfigurationError(f"{subject.name} has paused workloads already: drill when all is well")
    try:
        await subject.force(for_s + SPARE_S)
        say(f"{subject.name} is forced open for {for_s:g} s; Ctrl-C ends that at once")
        await _watch_going(subject, course, for_s, say)
    finally:
        await _cleared(subject, say)
    await _watch_return(subject, course, say)
    return course


async def _watch_going(subject: Subject, course: Course, for_s: float, say: Callable[[str], None]) -> None:
    began = time.monotonic()
    while (after_s := time.monotonic() - began) < for_s:
        seen = await subject.seen()
        for each in sorted(seen.paused - course.paused):
            say(f"{after_s:5.1f} s  {each} is paused")
        course.go(seen, after_s)
        await asyncio.sleep(LOOK_S)


async def _watch_return(subject: Subject, course: Course, say: Callable[[str], None]) -> None:
    began, left = time.monotonic(), set(course.paused)
    while (after_s := time.monotonic() - began) < BACK_S:
        seen = await subject.seen()
        for each in sorted(left - seen.paused):
            say(f"{after_s:5.1f} s  {each} is back")
        left &= seen.paused
        if course.come_back(seen, after_s):
            return
        await asyncio.sleep(LOOK_S)


async def _cleared(subject: Subject, say: Callable[[str], None]) -> None:
    """End the override, however often the drill is cancelled meanwhile."""
    ending, is_cancelled = asyncio.ensure_future(_release(subject)), False
    while not ending.done():
        try:
            await asyncio.wait([ending])
        except asyncio.CancelledError:
            is_cancelled = True
    if ending.result():
        say(f"the override of {subject.name} is ended")
    if is_cancelled:
        raise asyncio.CancelledError


async def _release(subject: Subject) -> bool:
    for tried in range(1, _TRIES + 1):
        try:
            return await subject.release()
        except OpenRouterGuardError as error:
            if tried == _TRIES:
                raise ConfigurationError(
                    f"the override of {subject.name} could not be ended, and ends by itself: {error}"
                ) from None
            await asyncio.sleep(tried * LOOK_S)
    return False
