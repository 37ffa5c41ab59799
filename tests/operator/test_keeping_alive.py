"""An outage does not expire while an operator has workloads paused for it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import redis.asyncio as aioredis

from openrouter_guard import Settings
from openrouter_guard.rules.breaker import Breaker, Closed, HalfOpen
from openrouter_guard.rules.codec import iso
from openrouter_guard.rules.shared_state import SharedState, Upstream
from openrouter_guard.rules.signals import OpenRouterState
from openrouter_guard.store import Store
from openrouter_operator.shared_state.feed import Feed
from tests.existing import STATE, ExistingWorker
from tests.service.apps import eventually

NOW_S = round(time.time(), 3)
HALF_OPEN = HalfOpen("service_unavailable", NOW_S - 900, failures=5, tried_at=NOW_S - 700)


async def written(store: Store, breaker: Breaker) -> None:
    upstream = Upstream(OpenRouterState.SERVICE_UNAVAILABLE, "Worker reported: service_unavailable")
    before = SharedState(breaker, epoch=int(NOW_S * 1000), upstream=upstream)
    await store.change(lambda _record, now: replace(before, timed_until=now - 61))


@pytest.fixture
async def feed(redis_url: str) -> AsyncIterator[Feed]:
    feed = Feed(Settings(redis_url), "operator", lambda _scope: None)
    yield feed
    await feed.stop()


async def test_it_is_renewed_and_existing_workers_go_on_seeing_it(
    store: Store, client: aioredis.Redis, redis_url: str, feed: Feed
) -> None:
    await written(store, HALF_OPEN)
    await client.hset(STATE, "last_check", iso(NOW_S - 400))
    await client.expire(STATE, 30)
    with ExistingWorker(redis_url) as existing:
        assert not existing.should_skip_api_call()
        await feed.start()

        await eventually(existing.should_skip_api_call)
        assert await client.ttl(STATE) > 3000


async def test_a_closed_state_that_all_others_have_left_may_expire(
    store: Store, client: aioredis.Redis, feed: Feed
) -> None:
    await written(store, Closed())
    await client.expire(STATE, 30)
    await feed.start()
    await feed._follow()
    assert await client.ttl(STATE) <= 30
