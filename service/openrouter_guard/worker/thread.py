"""One daemon thread with an event loop: the worker library's I/O happens here, never on the caller's path."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from openrouter_guard.runtime import cancelled

__all__ = ["LoopThread", "ended"]

T = TypeVar("T")


class LoopThread:
    """An event loop in a thread of its own, usable from any thread and any other event loop.

    Attributes:
        error: Why there is no thread, as where there are too many, or while the interpreter ends: then it is as if it
            had ended already. None if there is one.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()
        self._has_ended = False
        self._last: Callable[[], Awaitable[None]] | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.error: RuntimeError | None = None
        try:
            self._thread.start()
        except RuntimeError as error:
            self.error, self._has_ended = error, True
            self._loop.close()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start *work* in the loop; its future is cancelled if the loop ends first, or has ended already."""
        with self._lock:
            if not self._has_ended:
                return asyncio.run_coroutine_threadsafe(work, self._loop)
        work.close()
        future: Future[T] = Future()
        future.cancel()
        future.set_running_or_notify_cancel()
        return future

    def call(self, function: Callable[[], object]) -> None:
        """Run *function* in the loop soon; nothing happens if the loop has ended."""
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            # The loop is closed: the process or the guard is going away.
            return

    def stop(self, last: Callable[[], Awaitable[None]], timeout_s: float) -> None:
        """End all work, then run *last*; waits for that, but no longer than *timeout_s* seconds."""
        self._last = last
        self.call(self._loop.stop)
        self._thread.join(max(timeout_s, 0.0))

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            with self._lock:
                self._has_ended = True
            self._loop.run_until_complete(self._wind_up())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def _wind_up(self) -> None:
        await cancelled(*(asyncio.all_tasks(self._loop) - {asyncio.current_task()}))
        if self._last is not None:
            await self._last()


async def ended(future: Future[Any], timeout_s: float | None, *, cancel: bool = True) -> bool:
    """Wait in another loop for what runs in this one; True if it came to an end of its own.

    Awaiting it would take its cancellation, when the guard is closed, for the caller's own.
    """
    waiting = asyncio.wrap_future(future)
    try:
        await asyncio.wait((waiting,), timeout=timeout_s)
        return waiting.done() and not waiting.cancelled()
    finally:
        if cancel:
            waiting.cancel()
