"""The real SDKs on a guarded client; the rest of the worker's code does not know of the guard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
import httpx2
import openai
import openrouter
import pytest

import openrouter_guard.httpx
import openrouter_guard.httpx2
from openrouter_guard import AsyncGuard, CallNotPermitted, Guard
from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.testing import SimulatedOpenRouter
from tests.waiting import until
from tests.worker.guards import fail, half_open, settings

ANSWER = "This is a simulated answer."
MODEL = "simulated/model"
CHAT = "/chat/completions"
QUESTION: Any = [{"role": "user", "content": "Say something."}]

# The SDK's own models warn about fields that OpenRouter still sends.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*DEPRECATED:DeprecationWarning")]


@dataclass(frozen=True)
class Worker:
    """A worker's code, with an SDK as it comes: also with the retries that it makes by itself."""

    chat: Callable[[], str]
    stream: Callable[[], str]


def with_openai(sdk: openai.OpenAI) -> Worker:
    def chat() -> str:
        return sdk.chat.completions.create(model=MODEL, messages=QUESTION).choices[0].message.content or ""

    def stream() -> str:
        chunks = sdk.chat.completions.create(model=MODEL, messages=QUESTION, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

    return Worker(chat, stream)


def with_openrouter(sdk: openrouter.OpenRouter) -> Worker:
    def chat() -> str:
        return str(sdk.chat.send(messages=QUESTION, model=MODEL).choices[0].message.content)

    def stream() -> str:
        with sdk.chat.send(messages=QUESTION, model=MODEL, stream=True) as chunks:
            return "".join(str(chunk.choices[0].delta.content) for chunk in chunks if chunk.choices)

    return Worker(chat, stream)


SDKS = ["openai on httpx2", "openai on httpx", "openrouter"]


def worker_on(name: str, guard: Guard, base_url: str) -> tuple[Worker, Any]:
    """A worker, and the HTTP client that is to be closed after it."""
    if name == "openai on httpx2":
        client = httpx2.Client(transport=openrouter_guard.httpx2.GuardedTransport(guard))
        return with_openai(openai.OpenAI(base_url=base_url, api_key="sk", http_client=client)), client
    legacy = httpx.Client(transport=openrouter_guard.httpx.GuardedTransport(guard))
    if name == "openai on httpx":
        given: Any = legacy
        return with_openai(openai.OpenAI(base_url=base_url, api_key="sk", http_client=given)), legacy
    return with_openrouter(openrouter.OpenRouter("sk", server_url=base_url, client=legacy)), legacy


@pytest.fixture(params=SDKS)
def worker(request: pytest.FixtureRequest, guard: Guard, base_url: str) -> Iterator[Worker]:
    worker, client = worker_on(request.param, guard, base_url)
    with client:
        yield worker


def test_it_works_as_before(simulated: SimulatedOpenRouter, worker: Worker) -> None:
    assert worker.chat() == worker.stream() == ANSWER


@pytest.mark.parametrize("kind", ["chat", "stream"])
def test_a_refusal_comes_out_as_it_is_and_is_not_tried_again(
    simulated: SimulatedOpenRouter, worker: Worker, guard: Guard, kind: str
) -> None:
    fail(guard, 5)
    before = simulated.requests.get(CHAT, 0)
    with pytest.raises(CallNotPermitted) as refused:
        getattr(worker, kind)()
    assert 55 < refused.value.retry_after_s <= 66
    assert simulated.requests.get(CHAT, 0) == before


@pytest.mark.parametrize("kind", ["chat", "stream"])
def test_an_outage_ends_the_sdks_own_retries(
    simulated: SimulatedOpenRouter, worker: Worker, guard: Guard, kind: str
) -> None:
    fail(guard, 4)
    simulated.switch("outage")
    before = simulated.requests.get(CHAT, 0)
    with pytest.raises(CallNotPermitted):
        getattr(worker, kind)()
    assert simulated.requests[CHAT] == before + 1
    assert guard.state.reason == "service_unavailable"


def test_an_error_in_a_stream_is_counted(simulated: SimulatedOpenRouter, worker: Worker, guard: Guard) -> None:
    simulated.switch("error_in_stream")
    # One SDK raises it, the other hands it out as a chunk.
    with suppress(openai.APIError):
        worker.stream()
    guard.flush()
    assert guard.state.failures == 1


@pytest.mark.parametrize("name", SDKS)
def test_a_stream_that_went_well_closes_a_half_open_breaker(
    simulated: SimulatedOpenRouter, name: str, redis_url: str, base_url: str
) -> None:
    with Guard(settings(redis_url, reset_timeout_s=0.2)) as guard:
        half_open(guard)
        worker, client = worker_on(name, guard, base_url)
        with client:
            assert worker.stream() == ANSWER
        until(lambda: guard.state.phase is BreakerState.CLOSED)


class TestAsync:
    async def test_openai(self, simulated: SimulatedOpenRouter, redis_url: str, base_url: str) -> None:
        async with AsyncGuard(settings(redis_url)) as guard:
            transport = openrouter_guard.httpx2.AsyncGuardedTransport(guard)
            async with openai.AsyncOpenAI(
                base_url=base_url, api_key="sk", http_client=httpx2.AsyncClient(transport=transport), max_retries=0
            ) as sdk:
                stream = await sdk.chat.completions.create(model=MODEL, messages=QUESTION, stream=True)
                pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
                assert "".join(pieces) == ANSWER
                simulated.switch("outage")
                for _ in range(5):
                    with pytest.raises(openai.InternalServerError):
                        await sdk.chat.completions.create(model=MODEL, messages=QUESTION)
                await guard.flush()
                with pytest.raises(CallNotPermitted):
                    await sdk.chat.completions.create(model=MODEL, messages=QUESTION)

    async def test_openrouter(self, simulated: SimulatedOpenRouter, redis_url: str, base_url: str) -> None:
        async with AsyncGuard(settings(redis_url)) as guard:
            transport = openrouter_guard.httpx.AsyncGuardedTransport(guard)
            async with httpx.AsyncClient(transport=transport) as client:
                sdk = openrouter.OpenRouter("sk", server_url=base_url, async_client=client)
                answer = await sdk.chat.send_async(messages=QUESTION, model=MODEL)
                assert answer.choices[0].message.content == ANSWER
                for _ in range(4):
                    with suppress(TimeoutError):
                        async with guard.call():
                            raise TimeoutError
                simulated.switch("outage")
                # It would go on for an hour by itself.
                with pytest.raises(CallNotPermitted):
                    await sdk.chat.send_async(messages=QUESTION, model=MODEL)
