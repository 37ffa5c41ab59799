"""Health checks: their effect, and the key that they use."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import httpx
import pytest
import redis.asyncio as aioredis

from openrouter_guard import Guard
from openrouter_guard.rules import admission
from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.rules.codec import iso
from openrouter_guard.settings import Settings, Thresholds
from openrouter_guard.store import Store
from tests.service.apps import (
    FORCED,
    KEY,
    STATE,
    STATUS,
    FakeUpstream,
    ask,
    eventually,
    fail,
    failing,
    healthy,
    running,
    write,
)

pytestmark = pytest.mark.slow


def unreachable() -> httpx.Response:
    raise httpx.ConnectError("All connection attempts failed")


async def known(service: httpx.AsyncClient) -> dict[str, Any] | None:
    """The status, once a check is behind it."""
    answer = await ask(service)
    return answer if answer["last_check"] else None


class TestChecksCount:
    async def test_a_failed_check_is_one_failure(self, settings: Settings, upstream: FakeUpstream) -> None:
        upstream.answer = failing(503, "Maintenance")
        async with running(settings, upstream) as service:
            answer = await ask(service)
        assert (answer["status"], answer["message"]) == ("service_unavailable", "Maintenance")
        assert (answer["consecutive_failures"], answer["circuit_breaker_open"]) == (1, False)
        assert json.loads(answer["error_details"])["status_code"] == 503

    async def test_five_failed_checks_open_the_breaker_of_a_fleet_without_workers(
        self, settings: Settings, upstream: FakeUpstream
    ) -> None:
        upstream.answer = failing(503)
        quick = replace(settings, thresholds=Thresholds(check_slot_s=0.01))
        async with running(quick, upstream) as service:
            for _ in range(4):
                assert (await ask(service, FORCED))["circuit_breaker_open"] is False
                await asyncio.sleep(0.02)
            answer = await ask(service, FORCED)
            assert answer["circuit_breaker"]["state"] == "open"
            assert answer["circuit_breaker"]["reason"] == "service_unavailable"
            await ask(service, FORCED)
        assert upstream.calls == 5

    async def test_a_good_check_ends_failures_that_checks_alone_saw(
        self, settings: Settings, upstream: FakeUpstream
    ) -> None:
        upstream.answer = failing(503)
        quick = replace(settings, thresholds=Thresholds(check_slot_s=0.01))
        async with running(quick, upstream) as service:
            await ask(service, FORCED)
            await asyncio.sleep(0.02)
            upstream.answer = healthy()
            answer = await ask(service, FORCED)
        assert (answer["status"], answer["consecutive_failures"]) == ("active", 0)

    @pytest.mark.parametrize("by", ["a worker", "an older worker"])
    async def test_a_good_check_does_not_end_what_workers_see(
        self, settings: Settings, upstream: FakeUpstream, store: Store, client: aioredis.Redis, by: str
    ) -> None:
        await write(client, age_s=400, state="error", message="Worker reported: timeout", consecutive_failures="3")
        if by == "a worker":
            await fail(store, 1)
        async with running(settings, upstream) as service:
            answer = await ask(service)
        assert upstream.calls == 1
        assert (answer["status"], answer["message"]) == ("error", "Worker reported: timeout")
        assert answer["consecutive_failures"] == (4 if by == "a worker" else 3)
        assert answer["balance"] == 87.5

    async def test_a_check_is_not_a_call(self, settings: Settings, upstream: FakeUpstream, store: Store) -> None:
        upstream.answer = failing(503)
        async with running(settings, upstream) as service:
            await asyncio.gather(*(ask(service) for _ in range(3)))
            await ask(service)
        (day,) = (await store.metrics(1, time.time())).values()
        assert day == {"health_checks": "1", "health_checks_failed": "1", "cache_misses": "3", "cache_hits": "1"}

    async def test_a_rate_limited_check_holds_the_fleet_back(
        self, settings: Settings, upstream: FakeUpstream, store: Store
    ) -> None:
        upstream.answer = failing(429, "Slow down", headers={"Retry-After": "90"})
        async with running(settings, upstream) as service:
            answer = await ask(service)
        assert (answer["status"], answer["consecutive_failures"]) == ("rate_limited", 0)
        seen = await store.read()
        assert seen.record is not None
        blocked = admission.fleet_refusal(seen.record, seen.now)
        assert blocked is not None
        assert blocked[0] == pytest.approx(90, abs=2)

    async def test_what_was_counted_and_never_drawn_is_drawn(
        self, settings: Settings, upstream: FakeUpstream, store: Store
    ) -> None:
        await fail(store, 5)
        async with running(settings, upstream) as service:
            assert (await ask(service))["circuit_breaker"]["state"] == "open"
        assert [entry["to"] for entry in await store.history()] == ["open"]


class TestDoubts:
    """A worker says that the key or the credit is gone: a check is made at once, if the fleet's slot is free."""

    @pytest.fixture
    def bad_key(self, redis_url: str) -> Iterator[Guard]:
        with Guard(Settings(redis_url)) as guard:
            with guard.call() as call:
                call.answered(401, body={"error": {"code": 401, "message": "User not found"}})
            yield guard

    async def test_a_key_that_is_really_bad_stops_the_fleet(
        self, settings: Settings, upstream: FakeUpstream, store: Store, bad_key: Guard
    ) -> None:
        upstream.answer = failing(401, "User not found")
        async with running(settings, upstream):
            await eventually(lambda: bad_key.state.phase is BreakerState.OPEN)
        assert bad_key.state.reason == "api_key_invalid"
        assert upstream.calls == 1
        assert [entry["reason"] for entry in await store.history()] == ["api_key_invalid"]

    async def test_a_key_that_works_leaves_one_failure(
        self, settings: Settings, upstream: FakeUpstream, store: Store, bad_key: Guard
    ) -> None:
        async with running(settings, upstream) as service:
            await eventually(lambda: upstream.calls)
            answer = await eventually(lambda: known(service))
        assert (answer["status"], answer["consecutive_failures"]) == ("service_unavailable", 1)
        assert answer["circuit_breaker"]["state"] == "closed"
        assert "the key works" in answer["message"]

    async def test_the_slot_is_the_fleets(
        self, settings: Settings, upstream: FakeUpstream, store: Store, client: aioredis.Redis
    ) -> None:
        async with running(settings, upstream) as service:
            await ask(service)
            await store.change(lambda record, now: record and replace(record, check_wanted_at=now))
            await asyncio.sleep(0.1)
            assert upstream.calls == 1
            await client.hdel(STATE, "check_slot")
            await eventually(lambda: upstream.calls == 2)


class TestANetworkThatMayBeOneWorkersOwn:
    """The only worker that reports does not get through: a check, made at once, says whose network it is."""

    @pytest.fixture
    async def cut_off(self, redis_url: str, client: aioredis.Redis) -> AsyncIterator[Guard]:
        await write(client, age_s=100)  # too young to be checked again without a reason
        with Guard(Settings(redis_url)) as guard:
            for _ in range(5):
                with suppress(ConnectionError), guard.call():
                    raise ConnectionError
            guard.flush()
            yield guard

    async def test_it_stops_the_fleet_where_the_check_does_not_get_through_either(
        self, settings: Settings, upstream: FakeUpstream, cut_off: Guard
    ) -> None:
        upstream.answer = unreachable
        async with running(settings, upstream):
            await eventually(lambda: cut_off.state.phase is BreakerState.OPEN)
        assert cut_off.state.reason == "network_error"

    async def test_it_stops_nobody_where_the_check_does(
        self, settings: Settings, upstream: FakeUpstream, cut_off: Guard
    ) -> None:
        async with running(settings, upstream) as service:
            await eventually(lambda: upstream.calls)
            answer = await eventually(lambda: known(service))
        assert answer["circuit_breaker"]["state"] == "closed"
        assert cut_off.state.phase is BreakerState.CLOSED


class TestTheKey:
    async def test_without_one_the_answer_says_what_to_set(self, settings: Settings, upstream: FakeUpstream) -> None:
        async with running(replace(settings, api_key=""), upstream) as service:
            answers = [await ask(service), await ask(service)]
        assert {answer["status"] for answer in answers} == {"api_key_missing"}
        assert "OPENROUTER_API_KEY" in answers[0]["message"]
        assert (upstream.calls, answers[1]["consecutive_failures"]) == (0, 0)

    async def test_without_one_what_workers_say_stays_shared(
        self, settings: Settings, upstream: FakeUpstream, client: aioredis.Redis
    ) -> None:
        await write(client, age_s=400, last_api_call=iso(time.time()))
        async with running(replace(settings, api_key=""), upstream) as service:
            answer = await ask(service)
        assert answer["status"] == "api_key_missing"
        assert await client.hget(STATE, "state") == "active"

    async def test_a_bad_one_is_said_to_be_bad(self, settings: Settings, upstream: FakeUpstream) -> None:
        upstream.answer = failing(401, "User not found")
        async with running(settings, upstream) as service:
            answer = await ask(service)
        assert (answer["status"], answer["message"]) == ("api_key_invalid", "User not found")

    async def test_it_is_in_no_answer_no_log_and_not_in_redis(
        self, settings: Settings, upstream: FakeUpstream, client: aioredis.Redis, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("DEBUG")
        upstream.answer = failing(401, f"No such key: {KEY}")
        paths = (STATUS, FORCED, "/api/v1/openrouter/metrics", "/metrics", "/livez", "/openapi.json", "/nowhere")
        async with running(settings, upstream) as service:
            answers = [await service.get(path) for path in paths]
        shown = "".join(answer.text + str(answer.headers) for answer in answers)
        stored = str([await client.hgetall(key) for key in await client.keys("*") if "history" not in key])
        assert "sk-or" not in shown + stored + caplog.text
        assert "[key]" in shown
