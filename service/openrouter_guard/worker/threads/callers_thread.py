"""Stands in for the background thread while none can start: callers run its work in their own threads.

No lock is waited for. A caller that finds another one at work leaves its own work to that one, so a signal handler in
the middle of any line finds nothing locked.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from openrouter_guard.worker.own_errors import OwnErrors, is_thrown_in

from .loop_thread import LoopThread, cancel, run_here

__all__ = ["CallersThread"]

T = TypeVar("T")


class CallersThread:
    """Has the interface of :class:`LoopThread`, without a thread and without a loop.

    Args:
        farewell: The first thing at the end.
        close: The last thing.
    """

    def __init__(self, farewell: Callable[[], Awaitable[None]], close: Callable[[], Awaitable[None]]) -> None:
        self._farewell = farewell
        self._close = close
        self._within_s: float | None = None
        self._work: deque[Callable[[], object]] = deque()
        self._is_taken = threading.Lock()
        self._successor: LoopThread | None = None
        self._mistakes = OwnErrors()

    def call(self, function: Callable[[], object]) -> None:
        """Run *function* now, or leave it to the caller that is at work."""
        self._work.append(function)
        self._work_off()

    def submit(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        """Run *work*, which must not wait for anything: its future is cancelled if it does."""
        if self._successor is not None:
            return self._successor.submit(work)
        future: Future[T] = Future()
        self.call(partial(_step, work, future))
        return future

    @contextmanager
    def relieved(self) -> Iterator[bool]:
        """Keep callers from its work in this block; false if one is at work just now."""
        if not self._is_taken.acquire(blocking=False):
            yield False
            return
        try:
            yield True
        finally:
            self._is_taken.release()
            self._work_off()

    def succeeded_by(self, thread: LoopThread) -> None:
        """Leave all work to *thread* from now on."""
        self._successor = thread

    def end(self, within_s: float) -> None:
        """Note the time for the end. There is no thread that could begin it: see :meth:`join`."""
        self._within_s = within_s

    def join(self, _timeout_s: float) -> None:
        """Report the remaining results in this thread, within the time given to :meth:`end`."""
        with self._ending() as within_s:
            if within_s is not None:
                run_here(self._farewell, self._close, within_s)

    async def ended(self, _timeout_s: float) -> None:
        """:meth:`join` in the caller's event loop."""
        with self._ending() as within_s:
            for step in (self._farewell, self._close):
                if within_s is not None:
                    await self._within(step, within_s)

    async def _within(self, step: Callable[[], Awaitable[None]], within_s: float) -> None:
        try:
            async with asyncio.timeout(within_s):
                await step()
        except TimeoutError:
            return
        except Exception as error:  # noqa: BLE001  no step of the end may raise into the application
            self._mistakes.note(error)

    def disown(self) -> None:
        """Nothing of it is left in a forked child."""

    @contextmanager
    def _ending(self) -> Iterator[float | None]:
        """Yield the time for the end, once, while no caller is at work; None if it is not to end here."""
        within_s, self._within_s = self._within_s, None
        # Work of callers takes only moments. If this is a signal handler in the middle of it, it cannot go on.
        is_taken = within_s is not None and self._is_taken.acquire(timeout=max(within_s, 0.0))
        try:
            yield within_s if is_taken and self._successor is None else None
        finally:
            if is_taken:
                self._is_taken.release()

    def _work_off(self) -> None:
        # Once more after the release: another caller may have left work in the last moment.
        while self._work and self._is_taken.acquire(blocking=False):
            try:
                while self._work:
                    self._run(self._work.popleft())
            finally:
                self._is_taken.release()

    def _run(self, function: Callable[[], object]) -> None:
        if self._successor is not None:
            self._successor.call(function)
            return
        try:
            function()
        except Exception as error:
            if is_thrown_in(error):
                # A time limit of this caller, whosever work it was.
                raise
            self._mistakes.note(error)


def _step(work: Callable[[], Coroutine[Any, Any, T]], future: Future[T]) -> None:
    coroutine = work()
    try:
        coroutine.send(None)
    except StopIteration as done:
        if future.set_running_or_notify_cancel():
            future.set_result(done.value)
    except BaseException as error:
        if is_thrown_in(error):
            cancel(future)
            raise
        if future.set_running_or_notify_cancel():
            future.set_exception(error)
    else:
        coroutine.close()
        cancel(future)
