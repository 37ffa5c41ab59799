"""Who waits for the breaker and who listens to it: told when a new view comes, and when time alone changes it.

``Watch`` runs in the background loop. Listeners run in a thread of their own, so that a slow one holds up nothing.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from openrouter_guard.rules.breaker import Phase

from .lane import Lane
from .view import View

__all__ = ["Listeners", "Watch"]

logger = logging.getLogger(__name__)

TURN_S = 1.0
"""Half-open, so often as many of those who wait in this process may try as the fleet has permits."""

T = TypeVar("T")


class Watch:
    """Looks at the view when it is replaced, and when a deadline in it passes.

    Args:
        view: The present view.
        lane: This process' starts while the fleet comes back.
        phase: The breaker's effective state, as it was last told.
        on_phase: Called with the view whenever that is another one.

    Attributes:
        waiting: How many wait to be permitted.
    """

    def __init__(self, view: Callable[[], View], lane: Lane, phase: Phase, on_phase: Callable[[View], None]) -> None:
        self._view = view
        self._lane = lane
        self._queue = asyncio.Lock()
        self.waiting = 0
        self._phase = phase
        self._on_phase = on_phase
        self._telling: asyncio.Task[None] | None = None
        self._replaced = asyncio.Event()
        self._not_before_s = 0.0
        self._turn_ends_s = 0.0
        self._let = 0

    def start(self) -> None:
        self._telling = asyncio.create_task(self._tell_for_ever())

    def look(self) -> None:
        """The view is a new one."""
        self._replaced.set()
        self._replaced = asyncio.Event()

    def refused(self, retry_after_s: float) -> None:
        """All permits are out: nobody need try again so soon, unless the breaker closes."""
        self._not_before_s = time.monotonic() + retry_after_s

    async def permitted(self, *, has_start: bool = False) -> bool:
        """Return once calls may go, or may be tried: then for as many of those who wait as there may be permits.

        They wait in a queue, so that nobody is late for a start that was meant for it.

        Args:
            has_start: Whether who waits has taken one already.

        Returns:
            Whether it has taken a start of this process: while the fleet comes back, a call needs one.
        """
        self.waiting += 1
        try:
            async with self._queue:
                return await self._permitted(has_start=has_start)
        finally:
            self.waiting -= 1

    async def _permitted(self, *, has_start: bool) -> bool:
        while True:
            wait_s = max(self._blocked_s(), 0.0) or self._held_s()
            view = self._view()
            ramp = None if wait_s else view.ramp
            if ramp is not None and not has_start:
                wait_s = self._lane.enter(ramp, view.now_s, queues=True)
            if wait_s <= 0:
                return ramp is not None
            await self._next(wait_s)

    def _held_s(self) -> float:
        """How long one more must wait for its turn to try; 0 if it is its turn, or none is needed."""
        view, now_s = self._view(), time.monotonic()
        if not view.needs_permit:
            return 0.0
        if now_s >= self._turn_ends_s:
            self._turn_ends_s, self._let = now_s + TURN_S, 0
        if self._let >= view.policy.permits:
            return self._turn_ends_s - now_s
        self._let += 1
        return 0.0

    async def _tell_for_ever(self) -> None:
        # Until the first view comes, nothing is known that could differ.
        await self._next(None)
        while True:
            view = self._view()
            if view.phase is not self._phase:
                self._phase = view.phase
                self._on_phase(view)
            blocked = view.block_s()
            await self._next(blocked[0] if blocked else None)

    def _blocked_s(self) -> float:
        view = self._view()
        blocked = view.block_s()
        if view.is_look_due or (blocked is None and view.phase is not Phase.CLOSED):
            return self._not_before_s - time.monotonic()
        if blocked is None:
            return 0.0
        look_in_s = view.record.limit.look_s - view.now_s
        return min(blocked[0], look_in_s) if look_in_s > 0 else blocked[0]

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
                logger.exception("a listener to the breaker failed; said once", extra={"listener": self.callback})


_News: TypeAlias = queue.SimpleQueue[tuple[T, T, tuple[_Listener[T], ...]] | None]


class Listeners(Generic[T]):
    """Calls back in a thread of its own, in the order of what happened; it ends with this object at the latest."""

    def __init__(self) -> None:
        self._listeners: list[_Listener[T]] = []
        self._news: _News[T] | None = None

    def add(self, callback: Callable[[T, T], object]) -> Callable[[], None]:
        """Returns what removes it again."""
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
            # The thread holds the queue alone: a listener may hold the guard, and with it everything.
            weakref.finalize(self, news.put, None).atexit = False
            threading.Thread(target=_hear, args=(news,), name="openrouter-guard-listeners", daemon=True).start()
        self._news.put((before, after, tuple(self._listeners)))

    def stop(self) -> None:
        """End the thread once it has told what there was; a later :meth:`tell` starts anew."""
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
