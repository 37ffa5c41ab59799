"""Every answer of OpenRouter, and no answer at all, leads to a matching finding."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import httpx
import pytest

from openrouter_guard.errors import ConfigurationError
from openrouter_guard.rules.signals import Effect, ErrorType, OpenRouterState
from openrouter_guard.upstream import MAX_BODY_BYTES, CheckResult, OpenRouter
from tests.service.apps import KEY, Answer, failing, healthy

NOW_S = 1_772_366_400.0
ACTIVE, EXHAUSTED = OpenRouterState.ACTIVE, OpenRouterState.CREDITS_EXHAUSTED
INVALID, LIMITED = OpenRouterState.API_KEY_INVALID, OpenRouterState.RATE_LIMITED
UNAVAILABLE, ERROR = OpenRouterState.SERVICE_UNAVAILABLE, OpenRouterState.ERROR
RESET_MS = str(int((NOW_S + 90) * 1000))


def text(status_code: int, body: str | bytes, **headers: str) -> Answer:
    plain = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda: httpx.Response(status_code, content=body, headers=plain)


async def check(handle: Callable[[httpx.Request], httpx.Response], api_key: str = KEY) -> CheckResult:
    transport = httpx.MockTransport(handle)
    openrouter = OpenRouter("https://openrouter.test/api/v1", api_key, timeout_s=5, transport=transport)
    try:
        return await openrouter.check(NOW_S)
    finally:
        await openrouter.close()


async def answered(answer: Answer, api_key: str = KEY) -> CheckResult:
    return await check(lambda _request: answer(), api_key)


@pytest.mark.parametrize(
    ("answer", "state", "effect"),
    [
        pytest.param(healthy(), ACTIVE, Effect.SUCCESS, id="a good key"),
        pytest.param(healthy(None), ACTIVE, Effect.SUCCESS, id="a key without a cap"),
        pytest.param(healthy(0), EXHAUSTED, Effect.FAILURE, id="nothing left"),
        pytest.param(healthy(-0.5), EXHAUSTED, Effect.FAILURE, id="overdrawn"),
        pytest.param(failing(401, "User not found"), INVALID, Effect.FAILURE, id="401"),
        pytest.param(failing(402, "Insufficient credits"), EXHAUSTED, Effect.FAILURE, id="402"),
        pytest.param(
            failing(402, "busy", limit_source="openrouter_in_flight_budget"),
            ERROR,
            Effect.NEUTRAL,
            id="402 in flight",
        ),
        pytest.param(failing(403, "Key limit exceeded (daily)"), EXHAUSTED, Effect.FAILURE, id="403 key limit"),
        pytest.param(failing(403, "Not allowed"), ERROR, Effect.NEUTRAL, id="another 403"),
        pytest.param(failing(404, "Not found"), ERROR, Effect.NEUTRAL, id="404"),
        pytest.param(failing(408), ERROR, Effect.FAILURE, id="408"),
        pytest.param(failing(429, "Slow down"), LIMITED, Effect.FAILURE, id="429 without a time"),
        pytest.param(failing(429, headers={"Retry-After": "90"}), LIMITED, Effect.RATE_LIMIT, id="429"),
        *(
            pytest.param(failing(code), UNAVAILABLE, Effect.FAILURE, id=str(code))
            for code in (500, 502, 503, 529, 599)
        ),
        *(pytest.param(failing(code), ERROR, Effect.FAILURE, id=f"{code} is a timeout") for code in (504, 524)),
        pytest.param(text(503, "<html>" + "x" * 200_000), UNAVAILABLE, Effect.FAILURE, id="a large error page"),
        pytest.param(text(503, '{"error": "down"}'), UNAVAILABLE, Effect.FAILURE, id="an error that is a text"),
        pytest.param(text(503, '{"error": 7}'), UNAVAILABLE, Effect.FAILURE, id="an error that is a number"),
        pytest.param(
            text(200, '{"error": {"code": 402, "message": "no"}}'), EXHAUSTED, Effect.FAILURE, id="200: 402"
        ),
        pytest.param(text(200, '{"error": {"code": "x"}}'), UNAVAILABLE, Effect.FAILURE, id="200 with an error"),
        pytest.param(text(200, "<html>Log in to the Wi-Fi"), ERROR, Effect.FAILURE, id="not JSON"),
        pytest.param(text(200, b"\xff\xfe"), ERROR, Effect.FAILURE, id="not text"),
        pytest.param(text(200, "[" * 5000), ERROR, Effect.FAILURE, id="nested without end"),
        pytest.param(text(200, ""), ERROR, Effect.FAILURE, id="empty"),
        pytest.param(text(200, "[]"), ERROR, Effect.FAILURE, id="a list"),
        pytest.param(text(200, '{"data": {}}'), ERROR, Effect.FAILURE, id="fields are gone"),
        pytest.param(
            text(200, '{"data": {"limit_remaining": "5", "usage_daily": 0, "usage_monthly": 0}}'),
            ERROR,
            Effect.FAILURE,
            id="a text where a number was",
        ),
        pytest.param(
            text(200, '{"data": {"limit_remaining": NaN, "usage_daily": 0, "usage_monthly": 0}}'),
            ERROR,
            Effect.FAILURE,
            id="not a number",
        ),
        pytest.param(text(204, ""), ERROR, Effect.FAILURE, id="204"),
        pytest.param(text(301, "", location="https://elsewhere.test"), ERROR, Effect.FAILURE, id="a redirect"),
        pytest.param(text(200, " " * (MAX_BODY_BYTES + 1)), ERROR, Effect.FAILURE, id="huge"),
        pytest.param(
            text(200, gzip.compress(b"{}"), content_encoding="gzip"), ERROR, Effect.FAILURE, id="compressed"
        ),
    ],
)
async def test_an_answer_becomes_a_finding(answer: Answer, state: OpenRouterState, effect: Effect) -> None:
    finding = await answered(answer)
    assert (finding.state, finding.signal.effect) == (state, effect)
    assert finding.signal.message
    assert (finding.upstream(NOW_S).error_details == "") is (state is ACTIVE)


async def test_amounts_are_the_ones_of_the_key() -> None:
    upstream = (await answered(healthy(87.5))).upstream(NOW_S)
    assert (upstream.balance, upstream.usage_today, upstream.usage_month) == (87.5, 1.25, 12.5)
    assert (upstream.last_check_at, upstream.checked_at) == (NOW_S, NOW_S)


async def test_without_a_cap_there_is_no_balance() -> None:
    assert (await answered(healthy(None))).balance is None


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Retry-After": "90"}, id="seconds"),
        pytest.param({"X-RateLimit-Reset": RESET_MS}, id="epoch milliseconds"),
        pytest.param({"Retry-After": "Sun, 01 Mar 2026 12:01:30 GMT"}, id="a date"),
    ],
)
async def test_a_rate_limit_says_until_when(headers: dict[str, str]) -> None:
    upstream = (await answered(failing(429, "Slow down", headers=headers))).upstream(NOW_S)
    assert upstream.rate_limit_reset_at == pytest.approx(NOW_S + 90, abs=1)


async def test_error_details_are_json() -> None:
    upstream = (await answered(failing(503, "Try\nlater"))).upstream(NOW_S)
    assert json.loads(upstream.error_details) == {
        "timestamp": "2026-03-01T12:00:00+00:00",
        "error_type": "service_unavailable",
        "error_message": "Try later",
        "status_code": 503,
    }


async def test_a_wrong_answer_is_described_by_its_place() -> None:
    finding = await answered(text(200, '{"data": {"limit_remaining": 1, "usage_daily": 1}}'))
    assert finding.signal.message.endswith("data.usage_monthly: Field required")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        pytest.param(httpx.ConnectError("All connection attempts failed"), "cannot be reached: All", id="refused"),
        pytest.param(httpx.ConnectError("certificate verify failed"), "certificate verify failed", id="TLS"),
        pytest.param(httpx.RemoteProtocolError(""), "RemoteProtocolError", id="nothing to say"),
        pytest.param(httpx.ReadTimeout("slow"), "did not answer within 5 s", id="timeout"),
        pytest.param(OSError("disk on fire"), "disk on fire", id="the system"),
    ],
)
async def test_no_answer_is_a_failure_that_says_why(error: Exception, words: str) -> None:
    def fail(_request: httpx.Request) -> httpx.Response:
        raise error

    finding = await check(fail)
    assert (finding.state, finding.signal.effect) == (ERROR, Effect.FAILURE)
    assert words in finding.signal.message


@pytest.mark.parametrize(
    "echo",
    [
        pytest.param(failing(401, f"No such key: {KEY}"), id="in the message"),
        pytest.param(failing(500, "x" * 190 + f" Bearer {KEY}"), id="across the end of the message"),
        pytest.param(text(200, json.dumps({"data": {"usage_daily": KEY}})), id="as a value"),
        pytest.param(failing(401, "No such key: sk-or-v1-somebody-elses"), id="another key"),
    ],
)
async def test_a_key_that_comes_back_is_not_repeated(echo: Answer) -> None:
    finding = await answered(echo)
    assert "sk-or" not in finding.signal.message + finding.upstream(NOW_S).error_details + repr(finding)


@pytest.mark.parametrize(
    ("api_key", "state"),
    [
        pytest.param("", OpenRouterState.API_KEY_MISSING, id="none"),
        pytest.param("sk-or-v1\nabc", INVALID, id="two lines"),
        pytest.param("sk-or-v1-ü", INVALID, id="not ASCII"),
    ],
)
async def test_a_key_that_cannot_be_sent_is_not_sent(api_key: str, state: OpenRouterState) -> None:
    def refuse(_request: httpx.Request) -> httpx.Response:
        raise AssertionError("it was sent")

    finding = await check(refuse, api_key)
    assert finding.state is state
    assert "OPENROUTER_API_KEY" in finding.signal.message


@pytest.mark.parametrize(
    "base_url",
    [
        "http://host:port/api",
        "https://user:hunter2@host:hunter2x/api",
        "http:///api",
        "https://host:99999/api",
        "https://host:0/api",
        "https://a..b/api",
        f"https://{'a' * 64}.example/api",
    ],
)
def test_a_wrong_address_fails_at_once_and_without_its_password(base_url: str) -> None:
    with pytest.raises(ConfigurationError, match="OPENROUTER_BASE_URL") as caught:
        OpenRouter(base_url, KEY, timeout_s=1)
    assert "hunter2" not in str(caught.value)


def test_a_wrong_health_address_does_so_too() -> None:
    with pytest.raises(ConfigurationError, match="OPENROUTER_GUARD_HEALTH_URLS") as caught:
        OpenRouter("https://host/api", KEY, timeout_s=1, health_urls=["https://host:99999/hunter2"])
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("ALL_PROXY", "weird://user:hunter2@proxy"), ("SSL_CERT_FILE", "/no/hunter2.pem")],
)
def test_a_wrong_environment_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name) as caught:
        OpenRouter("https://host/api", KEY, timeout_s=1)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("error", [OverflowError("port"), UnicodeError("label"), RuntimeError("closed")])
async def test_an_odd_error_of_the_network_is_an_answer_too(error: Exception) -> None:
    def odd(_request: httpx.Request) -> httpx.Response:
        raise error

    openrouter = OpenRouter("https://host/api", KEY, timeout_s=1, transport=httpx.MockTransport(odd))
    finding = await openrouter.check(NOW_S)
    await openrouter.close()
    assert finding.signal.error_type is ErrorType.NETWORK_ERROR


class TestOnTheNetwork:
    """With real sockets: what a transport in the process cannot show."""

    @pytest.fixture
    async def trickle(self) -> AsyncIterator[int]:
        """The port of a server that answers a byte now and then, for ever."""

        drips: list[asyncio.Task[None]] = []

        async def drip(writer: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n")
                while True:
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(0.01)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

        def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            drips.append(asyncio.create_task(drip(writer)))

        async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
            yield server.sockets[0].getsockname()[1]
            await asyncio.gather(*drips)

    async def ask(self, url: str, timeout_s: float = 0.3) -> CheckResult:
        openrouter = OpenRouter(url, KEY, timeout_s=timeout_s)
        try:
            return await asyncio.wait_for(openrouter.check(NOW_S), 5)
        finally:
            await openrouter.close()

    async def test_a_trickle_ends_at_the_timeout(self, trickle: int) -> None:
        assert "within 0.3 s" in (await self.ask(f"http://127.0.0.1:{trickle}")).signal.message

    async def test_no_tls_where_tls_was_expected(self, trickle: int) -> None:
        finding = await self.ask(f"https://127.0.0.1:{trickle}", timeout_s=5)
        assert "cannot be reached: [SSL" in finding.signal.message

    async def test_nobody_listens(self) -> None:
        finding = await self.ask("http://127.0.0.1:1", timeout_s=5)
        assert "cannot be reached" in finding.signal.message
