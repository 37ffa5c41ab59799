"""A bug of ours never reaches the caller: it is logged once, and the call counts as far as it is known."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import httpx
import pytest

from openrouter_guard import AsyncGuard, CallNotPermitted, Guard
from openrouter_guard.httpx import GuardedTransport
from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.worker import call as calls
from openrouter_guard.worker import guard as guards
from openrouter_guard.worker.classification.response_inspector import ResponseInspector
from openrouter_guard.worker.core import Core
from openrouter_guard.worker.http import transport
from openrouter_guard.worker.own_errors import OwnErrors
from openrouter_guard.worker.view import View
from tests.waiting import until
from tests.worker.guards import half_open, settings

HOST = "https://openrouter.ai/api/v1"


class Mine(Exception):
    """The caller's."""


def wrong(*_: object, **__: object) -> None:
    raise RecursionError("sk-or-v1-0123456789abcdef is deep in here")


def blunders(patch: pytest.MonkeyPatch) -> None:
    """Whatever is classified from now on, it goes wrong."""
    for module in (calls, guards, transport):
        patch.setattr(module, "classify_exception", wrong)
    patch.setattr(calls, "classify_answer", wrong)
    patch.setattr(ResponseInspector, "signal", wrong)


@pytest.fixture
def blunder(monkeypatch: pytest.MonkeyPatch) -> None:
    blunders(monkeypatch)


def by_block(guard: Guard) -> None:
    with guard.call():
        raise Mine


def by_decorator(guard: Guard) -> None:
    @guard
    def fails() -> None:
        raise Mine

    fails()


def by_transport(guard: Guard) -> None:
    def fails(_: httpx.Request) -> httpx.Response:
        raise Mine

    with httpx.Client(transport=GuardedTransport(guard, httpx.MockTransport(fails))) as client:
        client.post(f"{HOST}/chat/completions", json={})


DOORS = pytest.mark.parametrize("door", [by_block, by_decorator, by_transport])


@DOORS
@pytest.mark.usefixtures("blunder")
def test_the_caller_gets_what_the_call_raised(
    guard: Guard, door: Callable[[Guard], None], caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        with pytest.raises(Mine):
            door(guard)
    assert guard.state.failures == 0
    (said,) = caplog.messages
    assert "RecursionError" in said
    assert "sk-or" not in caplog.text


def is_permitted(guard: Guard, door: Callable[[Guard], None]) -> bool:
    """Whether a call went; on a busy machine a permit may come too late for it."""
    try:
        with pytest.raises(Mine):
            door(guard)
    except CallNotPermitted:
        return False
    return True


@DOORS
def test_a_trial_call_gives_its_permit_back(
    redis_url: str, door: Callable[[Guard], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Guard(settings(redis_url, reset_timeout_s=0.3)) as guard:
        half_open(guard)
        blunders(monkeypatch)
        for _ in range(4):
            until(lambda: is_permitted(guard, door))
            guard.flush(30)
        assert guard.state.phase is BreakerState.HALF_OPEN


@pytest.mark.usefixtures("blunder")
def test_an_answer_reaches_the_caller_whole(guard: Guard) -> None:
    def answers(_: httpx.Request) -> httpx.Response:
        return httpx.Response(503, text="overloaded")

    with httpx.Client(transport=GuardedTransport(guard, httpx.MockTransport(answers))) as client:
        answer = client.post(f"{HOST}/chat/completions", json={})
    assert (answer.status_code, answer.text) == (503, "overloaded")


def test_where_the_body_cannot_be_read_the_status_counts(guard: Guard) -> None:
    class Body(dict[str, object]):
        def get(self, *_: object) -> object:
            raise LookupError("a strange mapping")

    with guard.call() as call:
        call.answered(503, body=Body(error={}))
    until(lambda: guard.state.failures == 1)


async def test_an_async_caller_gets_what_the_call_raised(redis_url: str, blunder: None) -> None:
    async with AsyncGuard(settings(redis_url)) as guard:

        @guard
        async def fails() -> None:
            raise Mine

        with pytest.raises(Mine):
            await fails()
        with pytest.raises(Mine):
            async with guard.call():
                raise Mine


def test_a_call_goes_where_its_admission_went_wrong(
    guard: Guard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with guard.call("some/model"):
        pass
    monkeypatch.setattr(Core, "admit", wrong)
    monkeypatch.setattr(View, "free_admission", None)
    went = 0
    for _ in range(2):
        with guard.call("some/model"):
            went += 1
    assert went == 2
    assert len(caplog.messages) == 1


def test_a_guard_that_can_open_no_file_lets_calls_go(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many open files as the process may have: then no event loop can be made."""

    def no_file() -> None:
        raise OSError(24, "Too many open files")

    with Guard(settings(redis_url)) as guard:
        with monkeypatch.context() as patch:
            patch.setattr(asyncio, "new_event_loop", no_file)
            with guard.call():
                pass
        with guard.call():
            pass
        guard.flush()


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except type(error) as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "is_ours"),
    [
        (AttributeError("a bug"), True),
        (RecursionError(), True),
        (OSError(24, "Too many open files"), True),
        (CallNotPermitted(1, "timeout"), False),
        (Mine(), False),
        (KeyboardInterrupt(), False),
        (asyncio.CancelledError(), False),
    ],
    ids=repr,
)
def test_what_is_a_mistake_of_ours_and_what_was_thrown_in(error: BaseException, is_ours: bool) -> None:
    assert OwnErrors().took(raised(error)) is is_ours


def test_what_a_signal_handler_raises_is_the_callers_whatever_it_is(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limit(*_: object) -> None:
        raise TimeoutError("a time limit")

    def struck(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, limit)
    try:
        monkeypatch.setattr(calls, "classify_exception", struck)
        with pytest.raises(TimeoutError, match="a time limit"), guard.call():
            raise Mine
    finally:
        signal.signal(signal.SIGALRM, before)
