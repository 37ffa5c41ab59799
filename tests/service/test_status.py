"""The status request on a real Valkey: its answer, and when it checks OpenRouter."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime
from typing import Any

import httpx
import pytest
import redis.asyncio as aioredis

from openrouter_guard.api.status import freshness
from openrouter_guard.replica import replica
from openrouter_guard.rules import health_checks
from openrouter_guard.rules.breaker import BreakerState, Open, Policy
from openrouter_guard.rules.codec import iso, parse_iso
from openrouter_guard.settings import Settings, Thresholds
from openrouter_guard.store import Store
from tests.service.apps import (
    FORCED,
    STATE,
    STATUS,
    FakeUpstream,
    ask,
    eventually,
    open_breaker,
    running,
    write,
)

pytestmark = pytest.mark.slow

CONTRACT: Mapping[str, tuple[type, ...]] = {
    "status": (str,),
    "message": (str,),
    "balance": (float, type(None)),
    "usage_today": (float, type(None)),
    "usage_month": (float, type(None)),
    "last_check": (str, type(None)),
    "error_details": (str, type(None)),
    "consecutive_failures": (int,),
    "circuit_breaker_open": (bool,),
    "cache_hit": (bool,),
}
ADDED = {"circuit_breaker", "age_seconds", "source", "degraded", "rate_limit_reset", "scope", "models", "balance_at"}


class TestCaching:
    async def test_the_first_answer_is_live_and_the_second_cached(
        self, settings: Settings, upstream: FakeUpstream
    ) -> None:
        async with running(settings, upstream) as service:
            first, second = await ask(service), await ask(service)
        assert (first["cache_hit"], first["source"]) == (False, "live")
        assert (second["cache_hit"], second["source"]) == (True, "cache")
        assert second["balance"] == first["balance"] == 87.5
        assert upstream.calls == 1

    async def test_the_fields_and_their_types(self, settings: Settings, upstream: FakeUpstream) -> None:
        async with running(settings, upstream) as service:
            answer = await ask(service)
        assert answer.keys() == CONTRACT.keys() | ADDED
        assert {name: type(answer[name]) in types for name, types in CONTRACT.items()} == dict.fromkeys(
            CONTRACT, True
        )
        names = {"state", "reason", "opened_at", "retry_at", "epoch", "override", "ramp", "nobody_tries"}
        assert answer["circuit_breaker"].keys() == names
        assert (answer["status"], answer["scope"], answer["models"]) == ("active", "default", {})
        assert datetime.fromisoformat(answer["last_check"]).utcoffset() is not None
        assert answer["last_check"].endswith("+00:00")

    async def test_what_is_no_longer_fresh_comes_at_once_with_a_refresh_behind_it(
        self, settings: Settings, upstream: FakeUpstream, client: aioredis.Redis
    ) -> None:
        await write(client, age_s=120)
        upstream.gate.clear()
        async with running(settings, upstream) as service:
            answers = [await ask(service) for _ in range(10)]
            assert {(answer["source"], answer["cache_hit"], answer["balance"]) for answer in answers} == {
                ("stale", True, 42.0)
            }
            assert answers[0]["age_seconds"] == pytest.approx(120, abs=2)
            upstream.gate.set()
            refreshed = await eventually(lambda: self.with_balance(service, 87.5))
        assert refreshed["source"] == "cache"
        assert upstream.calls == 1

    async def with_balance(self, service: httpx.AsyncClient, balance: float) -> dict[str, Any] | None:
        answer = await ask(service)
        return answer if answer["balance"] == balance else None

    async def test_what_is_stale_is_waited_for(
        self, settings: Settings, upstream: FakeUpstream, client: aioredis.Redis
    ) -> None:
        await write(client, age_s=301)
        async with running(settings, upstream) as service:
            answer = await ask(service)
        assert (answer["source"], answer["balance"], upstream.calls) == ("live", 87.5, 1)

    async def test_the_state_is_refreshed_though_nobody_asks(
        self, settings: Settings, upstream: FakeUpstream, client: aioredis.Redis
    ) -> None:
        await write(client, age_s=301)
        async with running(settings, upstream):
            await eventually(lambda: upstream.calls)
        assert await client.ttl(STATE) > 590

    async def test_a_fleet_that_nobody_ever_asks_about_is_checked(
        self, settings: Settings, upstream: FakeUpstream
    ) -> None:
        quick = replace(settings, thresholds=Thresholds(stale_s=0.1))
        async with running(quick, upstream):
            await eventually(lambda: upstream.calls)

    async def test_what_redis_loses_is_not_asked_for_again_at_once(
        self, settings: Settings, upstream: FakeUpstream, client: aioredis.Redis
    ) -> None:
        async with running(settings, upstream) as service:
            await ask(service)
            await client.flushall()
            await client.publish("openrouter:events", "look")
            await asyncio.sleep(0.1)
            answers = [await ask(service), await ask(service, FORCED)]
        assert {(answer["status"], answer["source"]) for answer in answers} == {("active", "cache")}
        assert upstream.calls == 1


class TestRoundTrips:
    """What requests cost Redis; a look at the state now and then is the service's own."""

    async def looks(self, client: aioredis.Redis) -> int:
        stats = await client.info("commandstats")
        return int(stats.get("cmdstat_time", {}).get("calls", 0))  # each look begins with it

    async def test_a_cached_answer_costs_none(
        self, settings: Settings, upstream: FakeUpstream, client: aioredis.Redis
    ) -> None:
        async with running(settings, upstream) as service:
            await ask(service)
            before = await self.looks(client)
            for _ in range(200):
                await ask(service)
            assert await self.looks(client) - before < 10

    async def test_requests_at_the_same_time_share_them(
        self, settings: Settings, upstream: FakeUpstream, client: aioredis.Redis
    ) -> None:
        async with running(settings, upstream) as service:
            before = await self.looks(client)
            await asyncio.gather(*(ask(service) for _ in range(100)))
            assert await self.looks(client) - before < 10


class TestForcing:
    async def test_a_forced_request_gets_a_new_answer_once_a_minute(
        self, settings: Settings, upstream: FakeUpstream, client: aioredis.Redis
    ) -> None:
        await write(client, age_s=1)
        async with running(settings, upstream) as service:
            answers = [await ask(service, FORCED) for _ in range(5)]
        assert [answer["source"] for answer in answers] == ["live", "cache", "cache", "cache", "cache"]
        assert upstream.calls == 1

    async def test_forced_requests_at_the_same_time_share_one_answer(
        self, settings: Settings, upstream: FakeUpstream, client: aioredis.Redis
    ) -> None:
        await write(client, age_s=1)
        async with running(settings, upstream) as service:
            answers = await asyncio.gather(*(ask(service, FORCED) for _ in range(50)))
        assert {answer["source"] for answer in answers} == {"live"}
        assert upstream.calls == 1


class TestManyReplicas:
    async def test_a_hundred_requests_to_four_cold_replicas_are_one_call(
        self, settings: Settings, upstream: FakeUpstream
    ) -> None:
        async with AsyncExitStack() as stack:
            replicas = [await stack.enter_async_context(running(settings, upstream)) for _ in range(4)]
            answers = await asyncio.gather(*(ask(replicas[number % 4]) for number in range(100)))
        assert upstream.calls == 1
        assert {answer["balance"] for answer in answers} == {87.5}
        # Who came after the check that each replica starts by itself was answered from memory.
        assert {answer["source"] for answer in answers} <= {"live", "cache"}

    async def test_one_replica_serves_what_another_found(self, settings: Settings, upstream: FakeUpstream) -> None:
        async with running(settings, upstream) as one, running(settings, upstream) as other:
            await ask(one)
            answer = await eventually(lambda: self.cached(other))
        assert answer["balance"] == 87.5
        assert upstream.calls == 1

    async def cached(self, service: httpx.AsyncClient) -> dict[str, Any] | None:
        answer = await ask(service)
        return answer if answer["cache_hit"] else None

    async def test_a_replica_that_died_while_it_asked_keeps_nobody_waiting_for_long(
        self, settings: Settings, upstream: FakeUpstream, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(freshness, "GRACE_S", 0.1)
        quick = replace(settings, thresholds=Thresholds(check_timeout_s=0.1))
        await store.change(
            lambda record, now: health_checks.with_check_slot(record, now=now, slot_s=60, policy=Policy())
        )
        began = time.monotonic()
        async with running(quick, upstream) as service:
            answer = await ask(service)
        assert time.monotonic() - began < 20
        assert (answer["status"], answer["message"]) == ("unknown", "OpenRouter has not been checked yet")
        assert answer["cache_hit"] is False
        assert upstream.calls == 0


class TestWhileCallsAreRefused:
    async def test_open_means_no_call_however_old_the_state_and_however_it_is_asked(
        self, settings: Settings, upstream: FakeUpstream, store: Store
    ) -> None:
        record = await open_breaker(store, settings)
        assert isinstance(record.breaker, Open)
        async with running(settings, upstream) as service:
            answers = [await ask(service), await ask(service, FORCED)]
        assert upstream.calls == 0
        for answer in answers:
            assert answer["circuit_breaker_open"] is True
            assert answer["consecutive_failures"] == 5
            assert answer["circuit_breaker"] == {
                "state": "open",
                "reason": record.breaker.reason,
                "opened_at": iso(record.breaker.opened_at),
                "retry_at": iso(record.breaker.until),
                "epoch": record.epoch,
                "override": None,
                "ramp": 0.0,
                "nobody_tries": False,
            }

    async def test_an_opening_is_pushed(
        self, settings: Settings, upstream: FakeUpstream, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(replica, "POLL_S", (60.0, 60.0))
        async with running(settings, upstream) as service:
            assert (await ask(service))["circuit_breaker_open"] is False
            await open_breaker(store, settings)
            answer = await eventually(lambda: self.opened(service))
        assert answer["circuit_breaker"]["state"] == "open"

    async def opened(self, service: httpx.AsyncClient) -> dict[str, Any] | None:
        answer = await ask(service)
        return answer if answer["circuit_breaker_open"] else None

    async def test_a_rate_limit_means_no_call(
        self, settings: Settings, upstream: FakeUpstream, client: aioredis.Redis
    ) -> None:
        reset = iso(time.time() + 200)
        await write(client, age_s=999, state="rate_limited", rate_limit_reset=reset)
        async with running(settings, upstream) as service:
            answer = await ask(service, FORCED)
        assert (answer["status"], answer["rate_limit_reset"], upstream.calls) == ("rate_limited", reset, 0)
        assert answer["circuit_breaker_open"] is False

    async def test_a_late_success_does_not_hide_a_rate_limit(
        self, settings: Settings, upstream: FakeUpstream, client: aioredis.Redis
    ) -> None:
        reset = iso(time.time() + 900)
        await write(client, age_s=1, rate_limit_reset=reset, limited_until=reset)
        async with running(settings, upstream) as service:
            assert (await ask(service))["status"] == "rate_limited"

    async def test_half_open_comes_by_time(self, settings: Settings, upstream: FakeUpstream, store: Store) -> None:
        soon = replace(settings, policy=replace(settings.policy, reset_timeout_s=0.05))
        await open_breaker(store, soon)
        await asyncio.sleep(0.06)
        async with running(soon, upstream) as service:
            answer = await ask(service)
        assert answer["circuit_breaker"]["state"] == "half_open"
        assert (answer["circuit_breaker_open"], answer["circuit_breaker"]["retry_at"]) == (True, None)


async def test_an_unknown_scope_is_not_found(settings: Settings, upstream: FakeUpstream) -> None:
    async with running(replace(settings, scope="team-a"), upstream) as service:
        assert (await ask(service, f"{STATUS}?scope=team-a"))["scope"] == "team-a"
        answer = await service.get(f"{STATUS}?scope=default")
    assert answer.status_code == 404
    assert "team-a" in answer.json()["detail"]


async def test_the_service_puts_down_the_time_in_a_state_that_nothing_happens_to(
    settings: Settings, upstream: FakeUpstream, client: aioredis.Redis, store: Store
) -> None:
    await write(client, age_s=1, epoch="1", timed_until=iso(time.time() - 100))
    async with running(settings, upstream):

        async def put_down() -> bool:
            return parse_iso(str(await client.hget(STATE, "timed_until"))) > time.time() - 60

        await eventually(put_down)
    (day,) = (await store.time_in_state(1, time.time())).values()
    assert day[BreakerState.CLOSED] >= min(100, time.time() % 86_400) - 1
