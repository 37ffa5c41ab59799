"""Each mode fails in its own way, and the product's rules interpret it correctly."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import httpx
import pytest

from openrouter_guard.rules.signals import Effect, ErrorType, OpenRouterState, Signal
from openrouter_guard.testing import MODES, SimulatedOpenRouter
from openrouter_guard.upstream import MAX_BODY_BYTES, CheckResult, OpenRouter
from openrouter_guard.worker.classification.classify import classify_answer, classify_exception

BASE_URL = "http://openrouter.test/api/v1"
KEY = "sk-or-v1-0123456789abcdef"
FREE = "simulated/model:free"

GOOD = (Effect.SUCCESS, None)
NEUTRAL = (Effect.NEUTRAL, None)
BAD_KEY = (Effect.FAILURE, ErrorType.API_KEY_INVALID)
NO_CREDITS = (Effect.FAILURE, ErrorType.CREDITS_EXHAUSTED)
TIMEOUT = (Effect.FAILURE, ErrorType.TIMEOUT)
UNAVAILABLE = (Effect.FAILURE, ErrorType.SERVICE_UNAVAILABLE)
LIMITED = (Effect.RATE_LIMIT, ErrorType.RATE_LIMITED)
POOL_IS_FULL = (Effect.NEUTRAL, ErrorType.RATE_LIMITED)

CALLS = {
    "healthy": (200, GOOD),
    "outage": (503, UNAVAILABLE),
    "bad_request": (400, NEUTRAL),
    "not_found": (404, NEUTRAL),
    "payload_too_large": (413, NEUTRAL),
    "unprocessable": (422, NEUTRAL),
    "forbidden": (403, NEUTRAL),
    "moderation": (403, NEUTRAL),
    "unauthorized": (401, BAD_KEY),
    "user_not_found": (401, BAD_KEY),
    "credits_exhausted": (402, NO_CREDITS),
    "credits_empty": (402, NO_CREDITS),
    "key_limit_reached": (402, NO_CREDITS),
    "key_limit_exceeded": (403, NO_CREDITS),
    "in_flight_budget": (402, NEUTRAL),
    "oversized_request": (402, NEUTRAL),
    "rate_limited": (429, LIMITED),
    "rate_limited_seconds": (429, LIMITED),
    "rate_limited_date": (429, LIMITED),
    "rate_limited_silent": (429, (Effect.FAILURE, ErrorType.RATE_LIMITED)),
    "provider_rate_limited": (429, POOL_IS_FULL),
    "request_timeout": (408, TIMEOUT),
    "server_error": (500, UNAVAILABLE),
    "bad_gateway": (502, UNAVAILABLE),
    "gateway_timeout": (504, TIMEOUT),
    "edge_timeout": (524, TIMEOUT),
    "overloaded": (529, UNAVAILABLE),
    "error_in_body": (200, UNAVAILABLE),
    "error_in_stream": (200, GOOD),
    "slow": (200, GOOD),
}
"""The status of a call, and what the rules see in it."""

NOT_ANSWERS = {"timeout", "dropped", "bad_json", "wrong_types", "huge_body", "redirect"}
OF_ONE_MODEL = {"provider_down", "free_daily_cap"}

S = OpenRouterState
CHECKS = {
    "healthy": (S.ACTIVE, "Service active"),
    "outage": (S.SERVICE_UNAVAILABLE, "Service unavailable"),
    "moderation": (S.ACTIVE, "Service active"),
    "unauthorized": (S.API_KEY_INVALID, "Invalid credentials"),
    "user_not_found": (S.API_KEY_INVALID, "User not found"),
    "credits_exhausted": (S.ACTIVE, "Service active"),
    "credits_empty": (S.CREDITS_EXHAUSTED, "0 USD left"),
    "key_limit_reached": (S.CREDITS_EXHAUSTED, "0 USD left"),
    "key_limit_exceeded": (S.CREDITS_EXHAUSTED, "0 USD left"),
    "rate_limited": (S.RATE_LIMITED, "Rate limit exceeded"),
    "request_timeout": (S.ERROR, "Request timed out"),
    "server_error": (S.SERVICE_UNAVAILABLE, "Internal server error"),
    "gateway_timeout": (S.ERROR, "Gateway timeout"),
    "overloaded": (S.SERVICE_UNAVAILABLE, "overloaded"),
    "error_in_body": (S.SERVICE_UNAVAILABLE, "Provider returned error"),
    "timeout": (S.ERROR, "did not answer within 0.2 s"),
    "dropped": (S.ERROR, "cannot be reached"),
    "bad_json": (S.ERROR, "cannot be used (HTTP 200)"),
    "wrong_types": (S.ERROR, "data.limit_remaining"),
    "huge_body": (S.ERROR, "larger than"),
    "redirect": (S.ERROR, "it redirects elsewhere"),
}
"""What a health check finds, and words of its message."""


@pytest.fixture
def simulated() -> SimulatedOpenRouter:
    return SimulatedOpenRouter()


@pytest.fixture
async def client(simulated: SimulatedOpenRouter) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=simulated)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(transport=transport, base_url=BASE_URL, headers=headers) as client:
        yield client


async def chat(client: httpx.AsyncClient, model: str = "simulated/model", **more: object) -> httpx.Response:
    question = {"model": model, "messages": [{"role": "user", "content": "Say something."}]}
    return await client.post("/chat/completions", json=question | more)


async def check(simulated: SimulatedOpenRouter, timeout_s: float = 5.0) -> CheckResult:
    openrouter = OpenRouter(BASE_URL, KEY, timeout_s=timeout_s, transport=httpx.ASGITransport(app=simulated))
    try:
        return await openrouter.check(time.time())
    finally:
        await openrouter.close()


def seen(answer: httpx.Response) -> Signal:
    return classify_answer(answer.status_code, body=answer.text, headers=answer.headers)


@pytest.mark.parametrize("mode", CALLS)
async def test_a_call(simulated: SimulatedOpenRouter, client: httpx.AsyncClient, mode: str) -> None:
    simulated.switch(mode, delay_s=0.0)
    answer = await chat(client)
    signal = seen(answer)
    assert (answer.status_code, (signal.effect, signal.error_type)) == CALLS[mode]


def test_no_mode_is_forgotten() -> None:
    assert CALLS.keys() | NOT_ANSWERS | OF_ONE_MODEL == MODES.keys()
    assert all(mode.description for mode in MODES.values())


@pytest.mark.parametrize("mode", CHECKS)
async def test_a_health_check(simulated: SimulatedOpenRouter, mode: str) -> None:
    simulated.switch(mode)
    finding = await check(simulated, timeout_s=0.2 if mode == "timeout" else 5.0)
    state, words = CHECKS[mode]
    assert finding.state is state
    assert words in finding.signal.message


async def test_a_slow_answer_is_a_good_one(simulated: SimulatedOpenRouter) -> None:
    simulated.switch("slow", delay_s=0.05)
    began_at = time.monotonic()
    assert (await check(simulated)).state is OpenRouterState.ACTIVE
    assert time.monotonic() - began_at >= 0.05


async def test_an_answer_may_be_slower_than_the_client_waits(simulated: SimulatedOpenRouter) -> None:
    simulated.switch("outage", delay_s=60)
    finding = await check(simulated, timeout_s=0.05)
    assert finding.signal.error_type is ErrorType.TIMEOUT


@pytest.mark.parametrize("mode", ["rate_limited", "rate_limited_seconds", "rate_limited_date"])
async def test_a_rate_limit_says_how_long(
    simulated: SimulatedOpenRouter, client: httpx.AsyncClient, mode: str
) -> None:
    simulated.switch(mode, retry_after_s=90)
    assert seen(await chat(client)).wait_s == pytest.approx(90, abs=2)


async def test_a_provider_says_how_long_in_the_body(
    simulated: SimulatedOpenRouter, client: httpx.AsyncClient
) -> None:
    simulated.switch("provider_rate_limited", retry_after_s=7)
    answer = await chat(client)
    assert "retry-after" not in answer.headers
    assert answer.json()["error"]["metadata"]["provider_name"]
    assert seen(answer).wait_s == 7


@pytest.mark.parametrize("mode", ["outage", "in_flight_budget"])
async def test_other_errors_may_say_how_long(
    simulated: SimulatedOpenRouter, client: httpx.AsyncClient, mode: str
) -> None:
    simulated.switch(mode, retry_after_s=11)
    assert (await chat(client)).headers["retry-after"] == "11"


async def test_the_daily_cap_is_one_of_free_models_until_midnight(
    simulated: SimulatedOpenRouter, client: httpx.AsyncClient
) -> None:
    simulated.switch("free_daily_cap")
    assert (await chat(client)).status_code == 200
    answer = await chat(client, FREE)
    assert answer.status_code == 429
    reset_s = int(answer.headers["x-ratelimit-reset"]) / 1000
    assert reset_s % 86_400 == 0
    assert 0 < reset_s - time.time() <= 86_400
    assert (await client.get("/key")).json()["data"]["free_model_daily_requests"]["remaining"] == 0


async def test_a_provider_that_is_down_is_named(simulated: SimulatedOpenRouter, client: httpx.AsyncClient) -> None:
    simulated.switch("provider_down")
    answer = await chat(client)
    assert answer.status_code == 502
    assert answer.json()["error"]["metadata"] == {
        "error_type": "provider_unavailable",
        "provider_name": "Simulated",
    }


async def test_a_stream_may_end_in_an_error(simulated: SimulatedOpenRouter, client: httpx.AsyncClient) -> None:
    simulated.switch("error_in_stream")
    lines = (await chat(client, stream=True)).text.split("\n\n")
    assert lines[0] == ": OPENROUTER PROCESSING"
    assert '"code": 502' in lines[2]
    assert '"finish_reason": "error"' in lines[2]


async def test_a_dropped_connection_is_a_network_error(
    simulated: SimulatedOpenRouter, client: httpx.AsyncClient
) -> None:
    simulated.switch("dropped")
    with pytest.raises(ConnectionResetError) as caught:
        await chat(client)
    assert classify_exception(caught.value).error_type is ErrorType.NETWORK_ERROR


async def test_a_body_may_be_half_of_one(simulated: SimulatedOpenRouter, client: httpx.AsyncClient) -> None:
    simulated.switch("bad_json")
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        (await chat(client)).json()


async def test_a_huge_body_is_good_at_its_end(simulated: SimulatedOpenRouter, client: httpx.AsyncClient) -> None:
    simulated.switch("huge_body")
    answer = await chat(client)
    assert len(answer.content) > 100 * MAX_BODY_BYTES
    assert answer.json()["choices"]


async def test_a_redirect_leads_nowhere(simulated: SimulatedOpenRouter, client: httpx.AsyncClient) -> None:
    simulated.switch("redirect")
    answer = await client.get("/key", follow_redirects=True)
    assert (answer.status_code, answer.url.path) == (404, "/login")


async def test_a_mode_may_strike_some_paths_only(simulated: SimulatedOpenRouter, client: httpx.AsyncClient) -> None:
    simulated.switch("outage", paths=["/chat/completions"])
    assert (await chat(client)).status_code == 503
    assert (await client.get("/key")).status_code == 200


async def test_a_mode_of_calls_may_strike_the_check(simulated: SimulatedOpenRouter) -> None:
    simulated.switch("in_flight_budget", paths=["/key"])
    assert (await check(simulated)).signal.effect is Effect.NEUTRAL


async def test_without_a_key_nothing_is_answered(simulated: SimulatedOpenRouter, client: httpx.AsyncClient) -> None:
    for header in ("", "Basic abc", "Bearer "):
        answer = await client.get("/models", headers={"Authorization": header})
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, 401)


async def test_credits_are_for_management_keys(simulated: SimulatedOpenRouter, client: httpx.AsyncClient) -> None:
    answer = await client.get("/credits")
    assert answer.status_code == 403
    assert "management" in answer.json()["error"]["message"]
    headers = {"Authorization": "Bearer sk-or-management"}
    assert (await client.get("/credits", headers=headers)).json()["data"]["total_credits"] == 250
    assert (await client.get("/key", headers=headers)).json()["data"]["is_management_key"] is True


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"messages": []}', '{"messages": "hi"}', "[" * 5000])
async def test_a_call_without_messages_is_refused(client: httpx.AsyncClient, content: str) -> None:
    answer = await client.post("/chat/completions", content=content)
    assert (answer.status_code, answer.json()["error"]["metadata"]) == (400, {"error_type": "invalid_request"})


async def test_the_older_path_of_the_key_answers_too(client: httpx.AsyncClient) -> None:
    assert (await client.get("/auth/key")).json() == (await client.get("/key")).json()
