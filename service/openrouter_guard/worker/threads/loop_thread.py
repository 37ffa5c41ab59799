"""One daemon thread with an event loop for the worker library's I/O, off the caller's path.

No lock is held here, so a signal handler, a finalizer or a fork in the middle of any line finds nothing locked.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from openrouter_guard.background import cancelled
from openrouter_guard.worker.own_errors import OwnErrors

from .turns import Turns, new_loop

__all__ = ["LoopThread", "cancel", "ended", "has_asyncio", "run_here", "waited"]

LOST_S = 1.6
"""Time limit of the farewell when nothing refers to the thread any more."""
STEP_S = 1.0
"""Time limit of each further step of the end."""

T = TypeVar("T")


class LoopThread:
    """An event loop in a thread of its own, usable from any thread, any other event loop and any signal handler.

    The thread ends by :meth:`end`, and by itself once nothing refers to this object any more.

    Args:
        name: Name of the thread.
        farewell: The first thing at the end, while all other work goes on.
        close: The last thing, once no other work is left.
        failed: Called before the end with the error that ends it, if one does.

    Attributes:
        error: The reason why there is no thread, such as too many threads, or the end of the interpreter: then it
            behaves as if it had ended already. None if it runs.
        gone: Done once it has ended.
    """

    def __init__(
        self,
        name: str,
        farewell: Callable[[], Awaitable[None]],
        close: Callable[[], Awaitable[None]],
        failed: Callable[[BaseException], object] = lambda _error: None,
    ) -> None:
        self.error: Exception | None = None
        self._life = life = _Life(farewell, close, failed)
        self.gone = life.gone
        # Before it starts: an interruption during the start must not leave a thread behind.
        self._lost = weakref.finalize(self, life.end)
        self._lost.atexit = False
        try:
            life.loop, life.turns = new_loop()
            self._thread = threading.Thread(target=life.run, name=name, daemon=True)
            self._thread.start()
        except (RuntimeError, OSError) as error:
            self.error = error
            life.drop()

    def submit(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        """Start *work* in the loop; its future is cancelled if the loop ends first, or has ended already."""
        return self._life.submit(work)

    def call(self, function: Callable[[], object]) -> None:
        """Run *function* in the loop soon; nothing happens if the loop has ended."""
        self._life.call(function)

    def end(self, within_s: float) -> None:
        """Begin to end, without waiting: the farewell may take *within_s* seconds."""
        self._life.end(within_s)

    def join(self, timeout_s: float) -> None:
        """Wait for the end, at most *timeout_s* seconds; within this thread itself not at all."""
        if self.error is None and self._thread is not threading.current_thread():
            self._thread.join(max(timeout_s, 0.0))

    async def ended(self, timeout_s: float) -> None:
        """:meth:`join` without blocking the event loop."""
        if await ended(self.gone, timeout_s, cancel=False):
            # Its last line has run.
            self.join(timeout_s)

    def disown(self) -> None:
        """Abandon it: in a forked child the thread does not exist, and the loop's pipe is the parent's."""
        self._life.loop = None


class _Life:
    """The part that the thread itself holds: not the :class:`LoopThread`, with which it ends."""

    def __init__(
        self,
        farewell: Callable[[], Awaitable[None]],
        close: Callable[[], Awaitable[None]],
        failed: Callable[[BaseException], object] = lambda _error: None,
    ) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.turns = Turns()
        self.gone: Future[None] = Future()
        self.waiting: set[Future[Any]] = set()
        self._farewell = farewell
        self._close = close
        self._failed = failed
        self._within_s: float | None = None
        self._mistakes = OwnErrors()

    def submit(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        future: Future[T] = Future()
        self.waiting.add(future)
        future.add_done_callback(self.waiting.discard)
        self.call(partial(self._start, work, future))
        if self.loop is None or self.loop.is_closed():
            # By now; and the closing thread may have checked the waiting calls before this.
            self.cancel_waiting()
        return future

    def _start(self, work: Callable[[], Coroutine[Any, Any, T]], future: Future[T]) -> None:
        task = asyncio.create_task(work())
        task.add_done_callback(partial(_pass_on, future))
        future.add_done_callback(lambda future: self.call(task.cancel) if future.cancelled() else None)

    def call(self, function: Callable[[], object]) -> None:
        loop = self.loop
        try:
            if loop is not None:
                loop.call_soon_threadsafe(function)
        except RuntimeError:
            # It is closed: the process or the guard is going away.
            return

    def end(self, within_s: float = LOST_S) -> None:
        loop = self.loop
        if loop is not None and self._within_s is None:
            self._within_s = within_s
            self.call(loop.stop)

    def drop(self) -> None:
        """There is no thread."""
        loop, self.loop = self.loop, None
        if loop is not None:
            loop.close()
        self.gone.set_result(None)

    def run(self) -> None:
        loop = self.loop
        if loop is None:
            return
        with self.turns.taken():
            error = self._try(loop.run_forever)
            if error is not None:
                self._failed(error)
            for step in (
                lambda: _within(self._farewell, LOST_S if self._within_s is None else self._within_s),
                self._wind_up,
                lambda: _within(self._close, STEP_S),
                self._wind_up,
                loop.shutdown_asyncgens,
            ):
                self._try(partial(_run, loop, step))
            loop.close()
        self.cancel_waiting()
        self.gone.set_result(None)

    def _try(self, step: Callable[[], object]) -> BaseException | None:
        """Run one step of the end; no step may prevent it. Return its error."""
        try:
            step()
        except BaseException as error:  # noqa: BLE001  a task may have raised SystemExit, another thread anything
            if isinstance(error, Exception) and not isinstance(error, TimeoutError):
                self._mistakes.note(error)
            return error
        return None

    async def _wind_up(self) -> None:
        async with asyncio.timeout(STEP_S):
            await cancelled(*(asyncio.all_tasks() - {asyncio.current_task()}))

    def cancel_waiting(self) -> None:
        """Cancel late work, and work that would not end."""
        with suppress(KeyError):
            while True:
                cancel(self.waiting.pop())


def run_here(farewell: Callable[[], Awaitable[None]], close: Callable[[], Awaitable[None]], within_s: float) -> None:
    """Run the end of a background that has no thread in this one, whatever event loop runs in it."""
    life = _Life(farewell, close)
    try:
        life.loop, life.turns = new_loop()
    except (RuntimeError, OSError):
        return
    life.end(within_s)
    life.run()


def _run(loop: asyncio.AbstractEventLoop, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
    loop.run_until_complete(step())


async def _within(work: Callable[[], Awaitable[None]], timeout_s: float) -> None:
    """Run *work* within its time limit, and leave the rest to the final cleanup.

    On Python 3.11 an own timeout may be lost in an awaited call.
    """

    async def worked() -> None:
        await work()

    task = asyncio.create_task(worked())
    await asyncio.wait((task,), timeout=timeout_s)
    if task.done():
        task.result()


def _pass_on(future: Future[T], task: asyncio.Task[T]) -> None:
    if task.cancelled():
        cancel(future)
        return
    error = task.exception()
    if not future.set_running_or_notify_cancel():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(task.result())


def cancel(future: Future[Any]) -> None:
    if future.cancel():
        # Otherwise a caller that waits for several would not notice.
        future.set_running_or_notify_cancel()


def waited(future: Future[Any], timeout_s: float | None) -> bool:
    """Block until *future* ended by itself; False if it did not within *timeout_s* seconds.

    Nothing is caught here: a ``TimeoutError`` raised by a signal handler belongs to the caller.
    """
    concurrent.futures.wait((future,), timeout_s)
    return future.done() and not future.cancelled()


def has_asyncio() -> bool:
    """Return whether an event loop of asyncio runs here: not in a plain thread, and not under trio."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def ended(future: Future[Any], timeout_s: float | None, *, cancel: bool = True) -> bool:
    """Wait in another loop for a future of this one; True if it ended by itself.

    Awaiting it would confuse its cancellation, when the guard is closed, with the caller's own.
    """
    waiting = asyncio.wrap_future(future)
    try:
        await asyncio.wait((waiting,), timeout=timeout_s)
        return waiting.done() and not waiting.cancelled()
    finally:
        if cancel:
            waiting.cancel()
