"""Hashes that an older system wrote, and one that it reads."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import datetime
from functools import partial

import pytest
import redis.asyncio as aioredis

from openrouter_guard.rules.breaker import HalfOpen
from openrouter_guard.rules.codec import iso
from openrouter_guard.rules.shared_state import SharedState, Upstream
from openrouter_guard.rules.signals import OpenRouterState
from openrouter_guard.settings import Settings
from openrouter_guard.store import Store
from tests.existing import Checked, ExistingApi, ExistingWorker
from tests.service.apps import (
    FORCED,
    STATE,
    FakeUpstream,
    ask,
    eventually,
    open_breaker,
    running,
    write,
    write_as_before,
)

pytestmark = pytest.mark.slow


async def test_their_state_is_served_at_once_and_a_check_of_ours_follows(
    settings: Settings, upstream: FakeUpstream, client: aioredis.Redis
) -> None:
    await write_as_before(client, age_s=5, error_details="connection reset", consecutive_failures="2")
    async with running(settings, upstream) as service:
        answer = await ask(service)
        await eventually(lambda: upstream.calls == 1)
    assert (answer["status"], answer["balance"], answer["usage_month"]) == ("active", 42.0, 30.25)
    assert (answer["consecutive_failures"], answer["error_details"]) == (2, "connection reset")
    assert (answer["cache_hit"], answer["source"], answer["age_seconds"]) == (True, "stale", None)


async def test_their_reports_are_no_check_of_ours(
    settings: Settings, upstream: FakeUpstream, client: aioredis.Redis
) -> None:
    await write(client, age_s=500)
    await client.hset(STATE, "last_check", iso(time.time()))
    async with running(settings, upstream) as service:
        answer = await ask(service)
    assert (answer["source"], answer["balance"], upstream.calls) == ("live", 87.5, 1)


async def test_their_open_breaker_is_ours(settings: Settings, upstream: FakeUpstream, client: aioredis.Redis) -> None:
    await write(client, age_s=500, state="service_unavailable", circuit_breaker_open="true")
    async with running(settings, upstream) as service:
        answer = await ask(service, FORCED)
    assert (answer["circuit_breaker_open"], answer["circuit_breaker"]["state"]) == (True, "open")
    assert answer["circuit_breaker"]["reason"] == "service_unavailable"
    assert upstream.calls == 0


async def test_a_check_does_not_write_over_what_they_just_opened(
    settings: Settings, upstream: FakeUpstream, client: aioredis.Redis
) -> None:
    await write(client, age_s=1)
    async with running(settings, upstream) as service:
        await asyncio.sleep(0.1)  # the first look, at the start, is over
        # Nobody pushes that: the service has not seen it when the request comes.
        await write(client, age_s=1, state="error", circuit_breaker_open="true")
        answer = await ask(service, FORCED)
    assert answer["circuit_breaker_open"] is True
    assert upstream.calls <= 1, "the service's own, once it has seen that the breaker is open"
    assert await client.hget(STATE, "circuit_breaker_open") == "true"


async def test_our_check_is_theirs(settings: Settings, upstream: FakeUpstream, client: aioredis.Redis) -> None:
    async with running(settings, upstream) as service:
        await ask(service)
    fields = await client.hgetall(STATE)
    assert (fields["state"], fields["balance"], fields["usage_today"]) == ("active", "87.5", "1.25")
    assert (fields["circuit_breaker_open"], fields["consecutive_failures"]) == ("false", "0")
    assert datetime.fromisoformat(str(fields["last_check"])).utcoffset() is not None


async def test_a_clock_that_runs_ahead_does_not_keep_us_from_asking(
    settings: Settings, upstream: FakeUpstream, client: aioredis.Redis
) -> None:
    await write(client, age_s=-86_400)
    async with running(settings, upstream) as service:
        assert (await ask(service))["source"] == "live"


async def test_the_errors_of_existing_workers_are_told_as_ours_are(
    settings: Settings, upstream: FakeUpstream
) -> None:
    with ExistingWorker(settings.redis_url) as existing:
        existing.report_api_error("timeout")
    async with running(settings, upstream) as service:
        status, workers = await ask(service), await ask(service, "/api/v1/openrouter/workers")
    details = json.loads(status["error_details"])
    (worker,) = workers["workers"]
    assert (details["error_type"], worker["last_error"]["error_type"]) == ("timeout", "timeout")
    assert (worker["worker_id"], worker["version"]) == (details["worker_id"], None)


async def test_no_answer_contradicts_itself_while_they_write_over_an_outage(
    settings: Settings, upstream: FakeUpstream, client: aioredis.Redis, store: Store, redis_url: str
) -> None:
    await open_breaker(store, settings)
    with ExistingWorker(redis_url) as existing:
        theirs = ExistingApi(existing.manager, lambda: Checked(usage=3.0))
        async with running(settings, upstream) as service:
            for write in (existing.report_api_success, existing.report_api_error, partial(theirs.status, True)):
                for _ in range(3):
                    write()

                    async def is_put_right() -> bool:
                        answer = await ask(service)
                        breaker = answer["circuit_breaker"]
                        assert (answer["circuit_breaker_open"], breaker["state"]) == (True, "open")
                        assert answer["status"] != "active"
                        assert answer["message"] != "Service active"
                        assert answer["consecutive_failures"] == 5
                        return existing.should_skip_api_call()

                    await eventually(is_put_right)


async def test_a_late_failure_of_theirs_does_not_close_over_a_revoked_key(
    settings: Settings, upstream: FakeUpstream, client: aioredis.Redis, store: Store, redis_url: str
) -> None:
    breaker = HalfOpen("api_key_invalid", time.time() - 900, failures=1, tried_at=time.time() - 10)
    seen = Upstream(OpenRouterState.API_KEY_INVALID, "User not found")
    await store.change(lambda _record, now: SharedState(breaker, epoch=int(now * 1000), upstream=seen))
    with ExistingWorker(redis_url) as existing:
        async with running(settings, upstream) as service:
            assert existing.report_api_error("timeout")
            await eventually(existing.should_skip_api_call)
            answer = await ask(service)
    assert answer["circuit_breaker"]["state"] == "half_open"
    assert answer["circuit_breaker"]["reason"] == "api_key_invalid"
