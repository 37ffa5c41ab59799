"""The worker's entry point: ``with guard.call(): …`` makes a call, or refuses it while the fleet waits.

``@guard`` does the same around each call of a function.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable, Coroutine
from functools import partial, wraps
from time import sleep
from types import TracebackType
from typing import Any, NoReturn, ParamSpec, Self, TypeVar

from openrouter_guard.clocks import monotonic
from openrouter_guard.keys import DEFAULT_SCOPE
from openrouter_guard.rules.signals import SUCCESS
from openrouter_guard.settings import Settings

from . import grants
from .call import AsyncCall, SyncCall, require_asyncio
from .classification.classify import classify_exception, read_clock
from .core import Core
from .guard_state import GuardState
from .threads import fork_hooks
from .threads.loop_thread import ended, waited
from .view import Admission

__all__ = ["AsyncGuard", "Guard"]

CLOSE_S = 2.0

P = ParamSpec("P")
T = TypeVar("T")
_NOT_FLUSHED = "not every result is in Redis: it took too long, or the guard was closed"
_UNKNOWN = Admission(0, "")


class _Guard:
    """The base of both guards.

    Args:
        settings: Settings of this process.
        flush_on_sigterm: Whether this process reports its remaining results on SIGTERM, within two seconds, before
            the previous handling. Only in the main thread.

    Raises:
        ConfigurationError: If ``flush_on_sigterm`` is set in another thread.
    """

    def __init__(self, settings: Settings, *, flush_on_sigterm: bool = False) -> None:
        self._core = Core(settings)
        if flush_on_sigterm:
            fork_hooks.flush_on_sigterm(self._core)

    @classmethod
    def from_url(cls, redis_url: str, scope: str = DEFAULT_SCOPE, *, flush_on_sigterm: bool = False) -> Self:
        """Create a guard on the state at *redis_url*; it connects in the background on first use.

        Raises:
            ConfigurationError: If the address or the scope is invalid.
        """
        return cls(Settings(redis_url=redis_url, scope=scope), flush_on_sigterm=flush_on_sigterm)

    @classmethod
    def from_env(cls, *, flush_on_sigterm: bool = False) -> Self:
        """Create a guard from ``REDIS_URL`` and ``OPENROUTER_GUARD_*``.

        Args:
            flush_on_sigterm: Whether this process reports its remaining results on SIGTERM, before the previous
                handling. Python's default reports nothing.

        Raises:
            ConfigurationError: If a variable is missing or invalid; the message names it.
        """
        return cls(Settings.from_env(os.environ), flush_on_sigterm=flush_on_sigterm)

    def __reduce__(self) -> NoReturn:
        # A copy would carry the password of REDIS_URL into every queue or file that holds it.
        raise TypeError(f"{type(self).__name__} cannot be pickled: make one in the other process, with from_env()")

    @property
    def state(self) -> GuardState:
        """The breaker as this worker sees it, without asking Redis."""
        return self._core.state

    def on_transition(self, callback: Callable[[GuardState, GuardState], object]) -> Callable[[], None]:
        """Call ``callback(before, after)`` whenever the breaker, as this worker sees it, has changed its phase.

        The callback runs in a thread of its own and may take its time; its exceptions are logged, once. After a fork
        it listens in the child too, from the child's first use of the guard on.

        Returns:
            A function that removes the callback.
        """
        return self._core.on_transition(callback)


class Guard(_Guard):
    """Guards the calls of a worker; safe in threads and after ``fork``."""

    def call(self, model: str | None = None) -> SyncCall:
        """A context manager around one call to OpenRouter.

        An exception of the block is classified and reported in the background, and passed on unchanged.

        Args:
            model: The model that is called: if its providers fail, only its own calls are paused.

        Raises:
            CallNotPermitted: On entering, while calls, or those to *model*, are paused.
        """
        call = SyncCall()
        call._core = self._core  # noqa: SLF001
        call._model = model  # noqa: SLF001
        return call

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Decorate *function*: each call of it is one guarded call to OpenRouter.

        Raises:
            TypeError: For functions that return before their work is done: coroutine functions, for which there is
                ``AsyncGuard``, and generators, in which ``with guard.call():`` marks the call.
        """
        if inspect.iscoroutinefunction(function):
            raise TypeError(f"{_name(function)} is a coroutine function: decorate it with an AsyncGuard")
        _refuse_generators(function)

        core = self._core

        @wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            admission = core.view.free_admission
            if admission is None:
                with self.call():
                    return function(*args, **kwargs)
            # The same once more without an object for the call, which would double the cost.
            began_at = monotonic()
            core.begun.append(began_at)
            try:
                answer = function(*args, **kwargs)
            except BaseException as error:
                core.end(
                    admission,
                    core.said(partial(classify_exception, error, now=read_clock(core.view))),
                    began_at=began_at,
                )
                raise
            if admission is core.view.noop_success:
                core.results.append((SUCCESS, admission, began_at, monotonic(), None))
            else:
                core.end(admission, SUCCESS, began_at=began_at)
            return answer

        return guarded

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until calls may go, or, while half-open, until this thread has a permit for its next call.

        A refusal is still possible afterwards: another call may have failed meanwhile.

        Returns:
            False if *timeout_s* seconds pass before that, or if the guard is closed meanwhile.
        """
        alone = self._core.wait_alone(timeout_s)
        for pause_s in alone.pauses():
            sleep(pause_s)
        if alone.result is not None:
            return alone.result
        permitted = self._core.permitted()
        try:
            return waited(permitted, alone.left_s) and grants.took_of(self._core.lane, permitted)
        finally:
            permitted.cancel()

    def flush(self, timeout_s: float = CLOSE_S) -> None:
        """Wait until all results so far are in Redis.

        Raises:
            TimeoutError: If that takes longer, or the guard is closed meanwhile.
            StoreError: If Redis is away; nothing is lost, and the background retries.
        """
        flushed = self._core.flush()
        if not waited(flushed, timeout_s):
            raise TimeoutError(_NOT_FLUSHED)
        flushed.result()

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Report the remaining results and stop, within *timeout_s* seconds."""
        self._core.close(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncGuard(_Guard):
    """Guards the calls of an asyncio worker; one guard serves any number of event loops."""

    def call(self, model: str | None = None) -> AsyncCall:
        """An async context manager around one call to OpenRouter; see :meth:`Guard.call`."""
        call = AsyncCall()
        call._core = self._core  # noqa: SLF001
        call._model = model  # noqa: SLF001
        return call

    def __call__(self, function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Decorate a coroutine function; see :meth:`Guard.__call__`.

        Raises:
            TypeError: For any other function.
        """
        _refuse_generators(function)
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"{_name(function)} is not a coroutine function: decorate it with a Guard")

        core = self._core

        @wraps(function)
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            admission = core.view.free_admission
            if admission is None:
                async with self.call():
                    return await function(*args, **kwargs)
            # As above: an object for each call would double the cost.
            began_at = monotonic()
            core.begun.append(began_at)
            try:
                answer = await function(*args, **kwargs)
            except BaseException as error:
                core.end(
                    admission,
                    core.said(partial(classify_exception, error, now=read_clock(core.view))),
                    began_at=began_at,
                )
                raise
            if admission is core.view.noop_success:
                core.results.append((SUCCESS, admission, began_at, monotonic(), None))
            else:
                core.end(admission, SUCCESS, began_at=began_at)
            return answer

        return guarded

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until calls may go, or may be tried while half-open; see :meth:`Guard.wait`."""
        require_asyncio()
        alone = self._core.wait_alone(timeout_s)
        for pause_s in alone.pauses():
            await asyncio.sleep(pause_s)
        if alone.result is not None:
            return alone.result
        permitted = self._core.permitted()
        return await ended(permitted, alone.left_s) and grants.took_of(self._core.lane, permitted)

    async def flush(self, timeout_s: float = CLOSE_S) -> None:
        """Wait until all results so far are in Redis; see :meth:`Guard.flush`."""
        require_asyncio()
        flushed = self._core.flush()
        if not await ended(flushed, timeout_s):
            raise TimeoutError(_NOT_FLUSHED)
        flushed.result()

    async def close(self, timeout_s: float = CLOSE_S) -> None:
        """Report the remaining results and stop, within *timeout_s* seconds."""
        await self._core.aclose(timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _refuse_generators(function: Callable[..., object]) -> None:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{_name(function)} is a generator: its work is done after it returned; use guard.call() inside it"
        )


def _name(function: object) -> str:
    return str(getattr(function, "__qualname__", function))
