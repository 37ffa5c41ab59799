"""Compatibility with clients of the existing API: the same names, types and meanings in every state."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
import redis.asyncio as aioredis

from openrouter_guard.rules.codec import iso
from openrouter_guard.settings import Settings
from openrouter_guard.store import Store
from tests.service.apps import STATUS, FakeUpstream, ask, failing, healthy, open_breaker, running, write

KNOWN: Mapping[str, Any] = json.loads("""
{
    "status": "active",
    "message": "Service active",
    "balance": 87.5,
    "usage_today": 1.25,
    "usage_month": 12.5,
    "last_check": "2025-11-02T09:14:07.123456+00:00",
    "error_details": null,
    "consecutive_failures": 0,
    "circuit_breaker_open": false,
    "cache_hit": false
}
""")
"""The fields that existing clients read, as they look for the key that the tests' upstream describes."""
NULLABLE = {"balance", "usage_today", "usage_month", "last_check", "error_details"}
STATES = {
    *("active", "api_key_missing", "api_key_invalid", "credits_exhausted"),
    *("rate_limited", "service_unavailable", "error"),
}


def holds(answer: Mapping[str, Any]) -> None:
    """Check every field that existing clients read."""
    texts = {"last_check", "error_details"}
    for name, known in KNOWN.items():
        kind = str if name in texts else type(known)
        assert type(answer[name]) is kind or (answer[name] is None and name in NULLABLE), name
    assert answer["status"] in STATES
    if answer["last_check"]:
        # As their clients read it: with an offset, and not as "Z", which Python before 3.11 cannot read.
        assert datetime.fromisoformat(answer["last_check"]).utcoffset() is not None
        assert not answer["last_check"].endswith("Z")


async def test_a_good_key_is_answered_as_it_was(settings: Settings, upstream: FakeUpstream) -> None:
    async with running(settings, upstream) as service:
        answer = await ask(service)
    holds(answer)
    assert {name: answer[name] for name in KNOWN if name != "last_check"} == {
        name: value for name, value in KNOWN.items() if name != "last_check"
    }


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        pytest.param(failing(401, "User not found"), "api_key_invalid", id="401"),
        pytest.param(healthy(0), "credits_exhausted", id="nothing left"),
        pytest.param(failing(429, "Slow down", headers={"Retry-After": "60"}), "rate_limited", id="429"),
        pytest.param(failing(503, "Maintenance"), "service_unavailable", id="503"),
        pytest.param(failing(504), "error", id="504"),
        pytest.param(healthy(None), "active", id="a key without a limit"),
    ],
)
async def test_every_state_has_the_fields(
    settings: Settings, upstream: FakeUpstream, answer: Any, status: str
) -> None:
    upstream.answer = answer
    async with running(settings, upstream) as service:
        answers = [await ask(service), await ask(service)]
    for found in answers:
        holds(found)
        assert found["status"] == status
        assert found["error_details"] is None or json.loads(found["error_details"])["error_type"]
    assert [found["cache_hit"] for found in answers] == [False, True]


async def test_without_a_key(settings: Settings, upstream: FakeUpstream) -> None:
    async with running(replace(settings, api_key=""), upstream) as service:
        answer = await ask(service)
    holds(answer)
    assert answer["status"] == "api_key_missing"


async def test_without_redis(settings: Settings, upstream: FakeUpstream) -> None:
    async with running(replace(settings, redis_url="redis://127.0.0.1:1/0"), upstream) as service:
        answer = await ask(service)
    holds(answer)
    assert (answer["status"], answer["cache_hit"], answer["circuit_breaker_open"]) == ("error", False, False)


async def test_an_open_breaker(settings: Settings, upstream: FakeUpstream, store: Store) -> None:
    await open_breaker(store, settings)
    async with running(settings, upstream) as service:
        answer = await ask(service)
    holds(answer)
    assert (answer["circuit_breaker_open"], answer["consecutive_failures"]) == (True, 5)


async def test_the_balance_is_what_is_left_and_not_what_was_used(settings: Settings, upstream: FakeUpstream) -> None:
    upstream.answer = healthy(3.25)
    async with running(settings, upstream) as service:
        assert (await ask(service))["balance"] == 3.25


async def test_both_ways_to_ask_and_a_parameter_that_nobody_knows_still_work(
    settings: Settings, upstream: FakeUpstream, client: aioredis.Redis
) -> None:
    await write(client, age_s=1)
    async with running(settings, upstream) as service:
        for query in ("force_refresh=false", "force_refresh=true", "force_refresh=1", "verbose=yes"):
            holds(await ask(service, f"{STATUS}?{query}"))


async def test_the_days_metrics_have_their_shape(settings: Settings, upstream: FakeUpstream, store: Store) -> None:
    at = time.time()
    counters = {"total_calls": 3, "successful_calls": 2, "failed_calls": 1, "state_active": 2, "state_error": 1}
    await store.add_metrics(counters, at=at)
    async with running(settings, upstream) as service:
        answer = await ask(service, "/api/v1/openrouter/metrics?days=1")
    assert answer.keys() >= {"metrics", "days", "generated_at"}
    assert (answer["days"], list(answer["metrics"])) == (1, [iso(at)[:10]])
    assert counters.items() <= answer["metrics"][iso(at)[:10]].items()
    assert datetime.fromisoformat(answer["generated_at"]).utcoffset() is not None
