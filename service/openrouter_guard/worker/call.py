"""One guarded call: ``with guard.call():`` asks before it, and reports how it ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Self

from openrouter_guard.clocks import MonotonicTime, monotonic
from openrouter_guard.errors import ConfigurationError
from openrouter_guard.rules.signals import SUCCESS, Signal

from .classification.classify import classify_answer, classify_exception, read_clock
from .classification.response_inspector import of_told
from .core import FIRST_VIEW_S, Claim, Core
from .threads.loop_thread import ended, has_asyncio, waited
from .view import Admission

__all__ = ["AsyncCall", "Call", "SyncCall", "require_asyncio"]

_UNKNOWN = Admission(0, "")
_NO_ASYNCIO = (
    "an AsyncGuard needs a running asyncio event loop, and there is none here (is this trio?): call a Guard in a "
    "thread, as with trio.to_thread.run_sync(), or run under asyncio, as with anyio.run(main, backend='asyncio')"
)


class Call:
    """One call: the base of both forms. A guard fills it in, because an ``__init__`` would cost the caller more."""

    __slots__ = ("_admission", "_began_at", "_claim", "_core", "_model", "_signal")
    _claim: Claim
    _core: Core
    _model: str | None
    _signal: Signal
    _admission: Admission
    _began_at: MonotonicTime

    def answered(self, status_code: int, *, body: object = None, headers: Mapping[str, str] | None = None) -> None:
        """Report the answer, for clients that do not raise on an error status.

        Args:
            status_code: Status of the HTTP answer.
            body: Parsed JSON or text: an ``error`` inside a 200 counts as that error.
            headers: For the wait of a rate limit.
        """
        whole = partial(of_told, status_code, body=body, headers=headers, now=self.now)
        self._signal = self._core.said(whole, partial(classify_answer, status_code))
        # Not the admission whose success needs no report.
        self._admission = Admission(*self._admission)

    def end(self, says: Callable[[], Signal]) -> None:
        """Report the result of the call if no block's end does so; see :mod:`.http.transport`.

        Args:
            says: Returns the signal. A bug in it is kept from the caller, as any of ours.
        """
        try:
            self._core.end(self._admission, self._core.said(says), self._model or "", self._began_at)
        finally:
            self._give_back()

    @property
    def now(self) -> float:
        """Unix seconds, by Redis' clock if known."""
        return read_clock(self._core.view)

    def _end(self, error: BaseException | None) -> None:
        if error is None:
            self.end(lambda: getattr(self, "_signal", SUCCESS))
        else:
            self.end(partial(classify_exception, error, now=self.now))

    def _goes_all_the_same(self, error: BaseException) -> bool:
        """Return whether to let the call go although entering failed by a bug of ours. A permit is returned."""
        self._give_back()
        if not self._core.own_errors.took(error):
            return False
        self._admission, self._began_at = _UNKNOWN, monotonic()
        return True

    def _give_back(self) -> None:
        """Return a permit, if there is one; its result may have been reported already."""
        claim = getattr(self, "_claim", None)
        if claim is not None:
            claim.drop()


class SyncCall(Call):
    __slots__ = ()

    def __enter__(self) -> Self:
        try:
            core = self._core
            admission = core.view.free_admission
            if admission is None:
                admission = self._admitted()
            self._admission = admission
            self._began_at = began_at = monotonic()
            core.begun.append(began_at)
            return self  # noqa: TRY300  up to its last line
        except BaseException as error:
            if not self._goes_all_the_same(error):
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            core = self._core
            admission = self._admission
            if admission is core.view.noop_success and error is None:
                core.results.append((SUCCESS, admission, self._began_at, monotonic(), self._model))
            else:
                self._end(error)
        except BaseException:
            self._give_back()
            raise

    def _admitted(self) -> Admission:
        core = self._core
        if core.is_fresh:
            waited(core.first_view(), FIRST_VIEW_S[1])
        return core.admit(self._model or "") or self._permitted()

    def _permitted(self) -> Admission:
        self._claim = claim = self._core.claim()
        asked = self._core.ask(claim)
        granted = waited(asked, self._core.permit_s) and asked.result()
        return self._core.with_permit(claim, granted=granted)


class AsyncCall(Call):
    __slots__ = ()

    async def __aenter__(self) -> Self:
        try:
            core = self._core
            admission = core.view.free_admission
            if admission is None:
                admission = await self._admitted()
            self._admission = admission
            self._began_at = began_at = monotonic()
            core.begun.append(began_at)
            return self  # noqa: TRY300  up to its last line
        except BaseException as error:
            if not self._goes_all_the_same(error):
                raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            core = self._core
            admission = self._admission
            if admission is core.view.noop_success and error is None:
                core.results.append((SUCCESS, admission, self._began_at, monotonic(), self._model))
            else:
                self._end(error)
        except BaseException:
            self._give_back()
            raise

    async def _admitted(self) -> Admission:
        require_asyncio()
        core = self._core
        if core.is_fresh:
            await ended(core.first_view(), FIRST_VIEW_S[1])
        return core.admit(self._model or "") or await self._permitted()

    async def _permitted(self) -> Admission:
        self._claim = claim = self._core.claim()
        asked = self._core.ask(claim)
        granted = await ended(asked, self._core.permit_s, cancel=False) and asked.result()
        return self._core.with_permit(claim, granted=granted)


def require_asyncio() -> None:
    if not has_asyncio():
        raise ConfigurationError(_NO_ASYNCIO)
