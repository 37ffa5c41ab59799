"""A state that is lost, perhaps more than once: nothing of before takes back what came after."""

from __future__ import annotations

import json

import redis.asyncio as aioredis

from openrouter_guard.rules import record as records
from openrouter_guard.rules.record import Record
from openrouter_guard.rules.signals import Effect, ErrorType, Signal
from openrouter_guard.store import Store
from tests.existing import ExistingWorker
from tests.store.batches import report, settle

LIMIT = Signal(Effect.RATE_LIMIT, ErrorType.RATE_LIMITED, wait_s=60)


def limited(record: Record | None, now_s: float) -> Record:
    return records.limited(record or records.fresh(now_s), LIMIT, now_s)


async def read(store: Store) -> Record:
    record = (await store.read()).record
    assert record is not None
    return record


async def test_a_decision_of_before_the_last_loss_does_not_take_the_epoch_back(
    store: Store, client: aioredis.Redis
) -> None:
    seen = await store.read()
    late = limited(seen.record, seen.now_s)
    await report(store, 5)
    between = (await store.change(settle)).record
    assert between is not None
    assert between.epoch > late.epoch
    await client.flushall()
    assert await store.commit(seen, late) is None
    assert (await read(store)).epoch > between.epoch


async def test_who_decides_where_there_is_no_state_has_it_in_the_end(store: Store) -> None:
    after = (await store.change(limited)).record
    now = await read(store)
    assert after == now
    assert now.upstream.rate_limit_reset_s > 0


async def test_what_begins_there_is_read_by_existing_workers_and_expires(
    store: Store, client: aioredis.Redis, redis_url: str
) -> None:
    seen = await store.read()
    assert await store.commit(seen, limited(None, seen.now_s)) is None
    with ExistingWorker(redis_url) as existing:
        assert existing.read()["state"] == "active"
        assert not existing.should_skip_api_call()
    assert 0 < await client.ttl(store.keys.state) <= 600


async def test_what_existing_workers_have_written_is_what_it_begins_with(
    store: Store, client: aioredis.Redis, redis_url: str
) -> None:
    with ExistingWorker(redis_url) as existing:
        for _ in range(5):
            assert existing.report_api_error()
    await store.change(settle)
    now = await read(store)
    assert (now.breaker.failures, now.upstream.state) == (5, "service_unavailable")
    assert [change.after for change in now.transitions] == ["open"]
    assert json.loads(await client.hget(store.keys.state, "transitions") or "[]")[0]["by"] == "legacy worker"
