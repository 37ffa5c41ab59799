"""The plain status request returns recent bytes for as long as they are true."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import httpx
import pytest
import redis.asyncio as aioredis
from asgi_lifespan import LifespanManager

from openrouter_guard.api import create_app, status_fast_path
from openrouter_guard.api.server import listening
from openrouter_guard.settings import Settings, Tokens
from openrouter_guard.store import Store
from openrouter_guard.testing import server as simulator
from tests.service.apps import STATUS, FakeUpstream, ask, eventually, open_breaker, running, write


class Broken(Exception):
    """The route was asked."""


@pytest.fixture
async def repeating(
    settings: Settings, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """A service that has prepared its answer, holds it for long, and would fail if it had to make another."""
    monkeypatch.setattr(status_fast_path, "REPEAT_S", 600.0)
    app = create_app(settings, transport=upstream.transport)

    async def refuse(*, force: bool) -> None:
        raise Broken(force)

    async with LifespanManager(app) as managed:
        transport = httpx.ASGITransport(app=managed.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            await ask(client)
            await app.state.service._background.stop()  # no look at the state makes it out of date
            await ask(client)
            monkeypatch.setattr(app.state.service, "status", refuse)
            yield client


async def test_a_plain_request_costs_no_work_of_the_route(repeating: httpx.AsyncClient) -> None:
    first, second = await repeating.get(STATUS), await repeating.get(STATUS)
    assert first.status_code == second.status_code == 200
    assert first.content == second.content
    assert first.headers == second.headers
    assert first.headers["x-content-type-options"] == "nosniff"
    assert first.json()["cache_hit"] is True


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        pytest.param(f"{STATUS}?force_refresh=true", {}, id="a query"),
        pytest.param(f"{STATUS}?scope=default", {}, id="a scope"),
        pytest.param(STATUS, {"If-None-Match": '"1"'}, id="a condition"),
        pytest.param(STATUS, {"Authorization": "Bearer 1"}, id="a token"),
        pytest.param(STATUS, {"Origin": "http://elsewhere"}, id="another origin"),
    ],
)
async def test_what_may_change_the_answer_reaches_the_route(
    repeating: httpx.AsyncClient, url: str, headers: dict[str, str]
) -> None:
    assert (await repeating.get(url, headers=headers)).status_code == 500


@pytest.mark.parametrize("method", ["HEAD", "POST"])
async def test_another_method_reaches_the_route(repeating: httpx.AsyncClient, method: str) -> None:
    assert (await repeating.request(method, STATUS)).status_code != 200


async def test_a_repeated_answer_is_counted(repeating: httpx.AsyncClient) -> None:
    before = (await repeating.get("/metrics")).text
    await repeating.get(STATUS)
    after = (await repeating.get("/metrics")).text
    for name in (
        'openrouter_guard_status_answers_total{scope="default",source="cache"}',
        f'openrouter_guard_http_requests_total{{route="{STATUS}",status="200"}}',
        f'openrouter_guard_http_request_duration_seconds_count{{route="{STATUS}"}}',
    ):
        assert value(after, name) == value(before, name) + 1


def value(scraped: str, name: str) -> float:
    return float(next(line for line in scraped.splitlines() if line.startswith(name)).rpartition(" ")[2])


async def test_news_are_shown_however_long_an_answer_is_held(
    settings: Settings, upstream: FakeUpstream, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_fast_path, "REPEAT_S", 600.0)
    async with running(settings, upstream) as service:
        for _ in range(3):
            assert (await ask(service))["circuit_breaker_open"] is False
        await open_breaker(store, settings)

        async def opened() -> bool:
            return bool((await ask(service))["circuit_breaker_open"])

        await eventually(opened)


async def test_the_age_is_true(settings: Settings, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_fast_path, "REPEAT_S", 0.01)
    async with running(settings, upstream) as service:
        await ask(service)
        first = (await ask(service))["age_seconds"]
        await asyncio.sleep(0.1)
        assert (await ask(service))["age_seconds"] >= first + 0.09


async def test_what_would_start_a_refresh_is_not_repeated(
    settings: Settings, upstream: FakeUpstream, client: aioredis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_fast_path, "REPEAT_S", 600.0)
    await write(client, age_s=59.9)
    async with running(settings, upstream) as service:
        await ask(service)
        await asyncio.sleep(0.2)

        async def refreshed() -> bool:
            return bool((await ask(service))["balance"] == 87.5)

        # The next look at the state ends what was held; the request after it starts the refresh.
        await eventually(refreshed)


@pytest.mark.parametrize("listen", [listening, simulator._listen], ids=["the service", "the simulator"])
async def test_an_answer_in_two_pieces_does_not_wait_for_the_client(
    listen: Callable[[str, int], socket.socket],
) -> None:
    accepted = asyncio.get_running_loop().create_future()

    def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    with listen("127.0.0.1", 0) as listener:
        async with await asyncio.start_server(accept, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            assert await accepted
            writer.close()
            await writer.wait_closed()


async def test_what_a_reader_with_a_token_got_is_not_given_to_one_without(
    settings: Settings, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_fast_path, "REPEAT_S", 600.0)
    token = "reader-0123456789abcdef"
    async with running(replace(settings, tokens=Tokens(read=token)), upstream) as service:
        for _ in range(3):
            assert (await service.get(STATUS, headers={"Authorization": f"Bearer {token}"})).status_code == 200
            assert (await service.get(STATUS)).status_code == 401
