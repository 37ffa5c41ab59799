"""Notifies waiting callers and listeners when a new view comes, and when time alone changes it.

``Watch`` runs in the background loop. Listeners run in a thread of their own, so that a slow one delays nothing.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from openrouter_guard.rules.breaker import BreakerState

from .grants import NOTHING, Leave
from .lane import Lane
from .view import View

__all__ = ["Door", "Listeners", "Watch"]

logger = logging.getLogger(__name__)

TURN_S = 1.0
"""While half-open, how often the first waiting task of this process asks for a permit."""
HELD_S = 5.0
"""How long a permit is held for the call of the task that waited."""
MOMENT_S = 0.01

T = TypeVar("T")


class Door(NamedTuple):
    """Takes and returns permits of the fleet.

    Attributes:
        name: Returns the name of a new one.
        acquire: Takes it, if one is available.
        return_permit: Returns it, if it is held.
    """

    name: Callable[[], str]
    acquire: Callable[[str], Awaitable[bool]]
    return_permit: Callable[[str], None]


class Watch:
    """Checks the view when it is replaced, and when a deadline in it passes.

    Args:
        view: The present view.
        lane: This process' starts while the fleet comes back.
        door: Source of the permits.
        phase: The breaker's effective state at the last notification.
        on_phase: Called with the view after each change of that state.

    Attributes:
        waiting: Number of waiting tasks.
    """

    def __init__(
        self,
        view: Callable[[], View],
        lane: Lane,
        door: Door,
        phase: BreakerState,
        on_phase: Callable[[View], None],
    ) -> None:
        self._view = view
        self._lane = lane
        self._door = door
        self._queue = asyncio.Lock()
        self.waiting = 0
        self._phase = phase
        self._on_phase = on_phase
        self._telling: asyncio.Task[None] | None = None
        self._replaced = asyncio.Event()
        self._not_before = 0.0

    def start(self) -> None:
        self._telling = asyncio.create_task(self._tell_for_ever())

    def look(self) -> None:
        """Note a new view."""
        self._replaced.set()
        self._replaced = asyncio.Event()
        if self._view().is_alone:
            # No background runs that would notice.
            self._tell()

    def _tell(self) -> None:
        view = self._view()
        if view.phase is not self._phase:
            self._phase = view.phase
            self._on_phase(view)

    def refused(self, retry_after_s: float) -> None:
        """Note that all permits are out: no retry so soon, unless the breaker closes."""
        self._not_before = time.monotonic() + retry_after_s

    async def permitted(self, has: Leave = NOTHING) -> Leave:
        """Return once calls may go, or may be tried: then for as many waiting tasks as there are permits.

        They wait in a queue, so that each start reaches its task in time. While half-open, one at a time asks for a
        permit.

        Args:
            has: The grant that the task has already.

        Returns:
            Its grant for the coming call.
        """
        self.waiting += 1
        try:
            async with self._queue:
                while isinstance(leave := await self._leave(has), float):
                    await self._next(leave)
                return leave
        finally:
            self.waiting -= 1

    async def _leave(self, has: Leave) -> Leave | float:
        """Return the grant of the first waiting task, or the seconds that it must still wait."""
        blocked_s, view = self._blocked_s(), self._view()
        if blocked_s > 0:
            return blocked_s
        if view.needs_permit:
            if has.permit in self._lane.held:
                return has
            permit = await self._permit()
            return Leave(permit=permit) if permit else self._again_s()
        return self._start_of(view, has)

    def leave_alone(self, has: Leave) -> Leave | float:
        """Return the grant of a caller without a background, or the seconds that it must still wait.

        While half-open the call takes a permit itself, because nobody could return one that is not used.
        """
        blocked_s, view = self._blocked_s(), self._view()
        return blocked_s if blocked_s > 0 else NOTHING if view.needs_permit else self._start_of(view, has)

    def _start_of(self, view: View, has: Leave) -> Leave | float:
        ramp = view.ramp
        if ramp is None or has.is_start:
            return has if has.is_start else NOTHING
        return self._lane.enter(ramp, view.now, queues=True) or Leave(is_start=True)

    async def _permit(self) -> str:
        """Take one of the fleet's permits for the coming call; return its name, or none."""
        owner = self._door.name()
        asking = asyncio.ensure_future(self._door.acquire(owner))
        try:
            is_taken = await asyncio.shield(asking)
        except asyncio.CancelledError:
            # No caller waits any more for the pending grant.
            asking.add_done_callback(lambda _: self._door.return_permit(owner))
            raise
        if not is_taken:
            return ""
        self._lane.held.add(owner)
        asyncio.get_running_loop().call_later(HELD_S, self._lapsed, owner)
        return owner

    def _lapsed(self, owner: str) -> None:
        """Return a permit without a call: other tasks may have one to make, and are asked first."""
        if self._lane.claim(owner):
            self.refused(HELD_S)
            self._door.return_permit(owner)

    def _again_s(self) -> float:
        """Return when to ask again for a permit, if nothing happens until then."""
        return TURN_S if self._view().needs_permit else MOMENT_S

    async def _tell_for_ever(self) -> None:
        # Before the first view, nothing is known that could differ.
        await self._next(None)
        while True:
            self._tell()
            refused = self._view().fleet_refusal()
            await self._next(refused.retry_after_s if refused else None)

    def _blocked_s(self) -> float:
        view = self._view()
        refused = view.fleet_refusal()
        if view.is_look_due or (refused is None and view.phase is not BreakerState.CLOSED):
            return self._not_before - time.monotonic()
        if refused is None:
            return 0.0
        look_in_s = view.record.limit.retest_at - view.now
        return min(refused.retry_after_s, look_in_s) if look_in_s > 0 else refused.retry_after_s

    async def _next(self, timeout_s: float | None) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._replaced.wait()


@dataclass(slots=True, eq=False)
class _Listener(Generic[T]):
    callback: Callable[[T, T], object]
    has_failed: bool = False
    is_removed: bool = False

    def hear(self, before: T, after: T) -> None:
        try:
            if not self.is_removed:
                self.callback(before, after)
        except Exception:
            if not self.has_failed:
                self.has_failed = True
                with suppress(Exception):  # and so may a handler of the log
                    logger.exception(
                        "a listener to the breaker failed; logged once", extra={"listener": self.callback}
                    )


_News: TypeAlias = queue.SimpleQueue[tuple[T, T, tuple[_Listener[T], ...]] | None]


class Listeners(Generic[T]):
    """Runs callbacks in a thread of its own, in the order of events; it ends with this object at the latest."""

    def __init__(self) -> None:
        self._listeners: list[_Listener[T]] = []
        self._news: _News[T] | None = None
        self._is_heard = False

    def add(self, callback: Callable[[T, T], object]) -> Callable[[], None]:
        """Return a function that removes it."""
        listener = _Listener(callback)
        self._listeners.append(listener)

        def remove() -> None:
            listener.is_removed = True
            with suppress(ValueError):
                self._listeners.remove(listener)

        return remove

    def tell(self, before: T, after: T) -> None:
        """Never waits for a listener."""
        if not self._listeners:
            return
        if self._news is None:
            news: _News[T] = queue.SimpleQueue()
            self._news = news
            # The thread holds only the queue: a listener may hold the guard, and with it everything.
            weakref.finalize(self, news.put, None).atexit = False
            self._is_heard = False
        self._news.put((before, after, tuple(self._listeners)))
        # If no thread can start, the news waits for the next one.
        with suppress(RuntimeError):
            self._hear_by_thread(self._news)

    def _hear_by_thread(self, news: _News[T]) -> None:
        if not self._is_heard:
            threading.Thread(target=_hear, args=(news,), name="openrouter-guard-listeners", daemon=True).start()
            self._is_heard = True

    def stop(self) -> None:
        """End the thread after all notifications; a later :meth:`tell` starts a new one."""
        news, self._news = self._news, None
        if news is not None:
            news.put(None)

    def reset(self) -> None:
        """Forget the thread: in a forked child it does not exist."""
        self._news = None


def _hear(news: _News[T]) -> None:
    while (told := news.get()) is not None:
        before, after, listeners = told
        for listener in listeners:
            listener.hear(before, after)
        # Not kept while it waits for the next.
        del told, before, after, listeners, listener
