"""The worker's door to OpenRouter: ``with guard.call(): …`` makes the call, or refuses it while the fleet waits.

``@guard`` is the same around each call of a function.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import os
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from functools import wraps
from time import monotonic
from types import TracebackType
from typing import Any, NoReturn, ParamSpec, Self, TypeVar

from openrouter_guard.keys import DEFAULT_SCOPE
from openrouter_guard.rules.signals import SUCCESS, Signal
from openrouter_guard.settings import Settings

from .core import FIRST_VIEW_S, Core, GuardState
from .observe import of_answer, of_exception
from .thread import ended
from .view import Ticket

__all__ = ["AsyncCall", "AsyncGuard", "Call", "Guard", "SyncCall"]

CLOSE_S = 2.0

P = ParamSpec("P")
T = TypeVar("T")
_NOT_FLUSHED = "not every result is in Redis: it took too long, or the guard was closed"


class Call:
    """One call: what both forms of it share. A guard fills it in, for an ``__init__`` would cost the caller more."""

    __slots__ = ("_began_s", "_core", "_model", "_signal", "_ticket")
    _core: Core
    _model: str | None
    _signal: Signal
    _ticket: Ticket
    _began_s: float

    def answered(self, status_code: int, *, body: object = None, headers: Mapping[str, str] | None = None) -> None:
        """Tell what came back, for clients that do not raise on an error status.

        Args:
            status_code: Of the HTTP answer.
            body: Parsed JSON or text: an ``error`` inside a 200 counts as that error.
            headers: For the time that a rate limit asks to wait.
        """
        self._signal = of_answer(status_code, body=body, headers=headers)
        # Not the one that a success is noted under without more ado.
        self._ticket = Ticket(*self._ticket)

    def end(self, signal: Signal) -> None:
        """Report what the call came to, where no block's end does; see :mod:`.exchange`."""
        self._core.finish(self._ticket, signal, self._model or "", self._began_s)

    def _end(self, error: BaseException | None) -> None:
        self.end(of_exception(error) if error is not None else getattr(self, "_signal", SUCCESS))


class SyncCall(Call):
    __slots__ = ()

    def __enter__(self) -> Self:
        self._ticket = self._core.view.free_ticket or self._admitted()
        self._began_s = monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        core = self._core
        ticket = self._ticket
        if ticket is core.view.quiet_ticket and error is None:
            core.results.append((SUCCESS, ticket, self._began_s, monotonic(), self._model))
        else:
            self._end(error)

    def _admitted(self) -> Ticket:
        core = self._core
        if core.is_fresh:
            with suppress(TimeoutError, concurrent.futures.CancelledError):
                core.first_view().result(FIRST_VIEW_S)
        return core.admit(self._model or "") or self._permitted()

    def _permitted(self) -> Ticket:
        owner, asked = self._core.ask_permit()
        try:
            granted = asked.result(self._core.permit_s)
        except (TimeoutError, concurrent.futures.CancelledError):
            self._core.abandon(owner, asked)
            granted = False
        return self._core.with_permit(owner, granted=granted)


class AsyncCall(Call):
    __slots__ = ()

    async def __aenter__(self) -> Self:
        self._ticket = self._core.view.free_ticket or await self._admitted()
        self._began_s = monotonic()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        core = self._core
        ticket = self._ticket
        if ticket is core.view.quiet_ticket and error is None:
            core.results.append((SUCCESS, ticket, self._began_s, monotonic(), self._model))
        else:
            self._end(error)

    async def _admitted(self) -> Ticket:
        core = self._core
        if core.is_fresh:
            await ended(core.first_view(), FIRST_VIEW_S)
        return core.admit(self._model or "") or await self._permitted()

    async def _permitted(self) -> Ticket:
        owner, asked = self._core.ask_permit()
        granted = False
        try:
            if await ended(asked, self._core.permit_s, cancel=False):
                granted = asked.result()
        finally:
            if not granted:
                self._core.abandon(owner, asked)
        return self._core.with_permit(owner, granted=granted)


class _Guard:
    def __init__(self, settings: Settings) -> None:
        self._core = Core(settings)

    @classmethod
    def from_url(cls, redis_url: str, scope: str = DEFAULT_SCOPE) -> Self:
        """A guard on the state at *redis_url*; connects in the background on first use.

        Raises:
            ConfigurationError: If the address or the scope cannot be used.
        """
        return cls(Settings(redis_url=redis_url, scope=scope))

    @classmethod
    def from_env(cls) -> Self:
        """A guard set up by ``REDIS_URL`` and ``OPENROUTER_GUARD_*``.

        Raises:
            ConfigurationError: If a variable is missing or cannot be used; the message names it.
        """
        return cls(Settings.from_env(os.environ))

    def __reduce__(self) -> NoReturn:
        # A copy would carry the password of REDIS_URL into whatever queue or file it goes through.
        raise TypeError(f"{type(self).__name__} cannot be pickled: make one in the other process, with from_env()")

    @property
    def state(self) -> GuardState:
        """The breaker as this worker sees it, without asking Redis."""
        return self._core.state

    def on_transition(self, callback: Callable[[GuardState, GuardState], object]) -> Callable[[], None]:
        """Call ``callback(before, after)`` whenever the breaker, as this worker sees it, has changed its phase.

        It runs in a thread of its own: it may take its time, and what it raises is logged, once. After a fork it
        listens in the child too, from the child's first use of the guard on.

        Returns:
            A function that removes the callback.
        """
        return self._core.on_transition(callback)


class Guard(_Guard):
    """Guards the calls of a worker; safe in threads and after ``fork``."""

    def call(self, model: str | None = None) -> SyncCall:
        """A context manager around one call to OpenRouter.

        What the block raises is classified and reported in the background, and goes on to the caller unchanged.

        Args:
            model: The model that is called: then one that its providers fail pauses its own calls alone.

        Raises:
            CallNotPermitted: On entering, while calls are paused, or those to *model*.
        """
        call = SyncCall()
        call._core, call._model = self._core, model  # noqa: SLF001
        return call

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """A decorator: each call of *function* is one guarded call to OpenRouter.

        Raises:
            TypeError: For what returns before its work is done: coroutine functions, which an ``AsyncGuard`` takes,
                and generators, in which ``with guard.call():`` says which part is the call.
        """
        if inspect.iscoroutinefunction(function):
            raise TypeError(f"{_name(function)} is a coroutine function: decorate it with an AsyncGuard")
        _refuse_generators(function)

        core = self._core

        @wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            ticket = core.view.free_ticket
            if ticket is None:
                with self.call():
                    return function(*args, **kwargs)
            # The same once more without an object for the call, which would cost as much again.
            began_s = monotonic()
            try:
                answer = function(*args, **kwargs)
            except BaseException as error:
                core.finish(ticket, of_exception(error), began_s=began_s)
                raise
            core.succeed(ticket, "", began_s)
            return answer

        return guarded

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until calls may go, or while half-open may be tried; asks Redis nothing.

        A refusal is still possible afterwards: somebody else's call may have failed, or have taken the last permit.

        Returns:
            False if that did not come within *timeout_s* seconds, or if the guard was closed meanwhile.
        """
        permitted = self._core.permitted()
        try:
            concurrent.futures.wait((permitted,), timeout_s)
            return permitted.done() and not permitted.cancelled()
        finally:
            permitted.cancel()

    def flush(self, timeout_s: float = CLOSE_S) -> None:
        """Wait until every result so far is in Redis.

        Raises:
            TimeoutError: If that takes longer, or the guard was closed meanwhile.
            StoreError: If Redis is away; nothing is lost, it is tried again in the background.
        """
        try:
            self._core.flush().result(timeout_s)
        except (TimeoutError, concurrent.futures.CancelledError):
            raise TimeoutError(_NOT_FLUSHED) from None

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Report what is left and stop, within *timeout_s* seconds."""
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
        call._core, call._model = self._core, model  # noqa: SLF001
        return call

    def __call__(self, function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """A decorator for coroutine functions; see :meth:`Guard.__call__`.

        Raises:
            TypeError: For any other function.
        """
        _refuse_generators(function)
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"{_name(function)} is no coroutine function: decorate it with a Guard")

        core = self._core

        @wraps(function)
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            ticket = core.view.free_ticket
            if ticket is None:
                async with self.call():
                    return await function(*args, **kwargs)
            # As above: an object for each call would cost as much again.
            began_s = monotonic()
            try:
                answer = await function(*args, **kwargs)
            except BaseException as error:
                core.finish(ticket, of_exception(error), began_s=began_s)
                raise
            core.succeed(ticket, "", began_s)
            return answer

        return guarded

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until calls may go, or while half-open may be tried; see :meth:`Guard.wait`."""
        return await ended(self._core.permitted(), timeout_s)

    async def flush(self, timeout_s: float = CLOSE_S) -> None:
        """Wait until every result so far is in Redis; see :meth:`Guard.flush`."""
        flushed = self._core.flush()
        if not await ended(flushed, timeout_s):
            raise TimeoutError(_NOT_FLUSHED)
        flushed.result()

    async def close(self, timeout_s: float = CLOSE_S) -> None:
        """Report what is left and stop, within *timeout_s* seconds."""
        await asyncio.to_thread(self._core.close, timeout_s)

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
