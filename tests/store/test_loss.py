"""A state that is lost, perhaps more than once: older knowledge never undoes newer changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace

import pytest
import redis.asyncio as aioredis

from openrouter_guard import CallNotPermitted, Guard, OpenRouterStateManager, Settings
from openrouter_guard.rules import shared_state, trial_calls
from openrouter_guard.rules.breaker import Open
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.rules.signals import Effect, ErrorType, Signal
from openrouter_guard.store import Store
from tests.existing import ExistingWorker
from tests.service.apps import eventually
from tests.store.batches import report, settle
from tests.waiting import until
from tests.worker.guards import fail

pytestmark = pytest.mark.slow

LIMIT = Signal(Effect.RATE_LIMIT, ErrorType.RATE_LIMITED, wait_s=60)


def limited(record: SharedState | None, now: float) -> SharedState:
    return trial_calls.limited(record or shared_state.fresh(now), LIMIT, now)


async def read(store: Store) -> SharedState:
    record = (await store.read()).record
    assert record is not None
    return record


async def test_a_decision_of_before_the_last_loss_does_not_take_the_epoch_back(
    store: Store, client: aioredis.Redis
) -> None:
    seen = await store.read()
    late = limited(seen.record, seen.now)
    await report(store, 5)
    between = (await store.change(settle)).record
    assert between is not None
    assert between.epoch > late.epoch
    await client.flushall()
    assert await store.commit(seen, late) is not None
    assert (await read(store)).epoch > between.epoch


async def test_a_decision_that_took_long_is_made_again(store: Store) -> None:
    seen = await store.read()
    seen = replace(seen, now=seen.now - 10)
    assert await store.commit(seen, limited(None, seen.now)) is None
    assert (await store.read()).record is None


async def test_who_decides_where_there_is_no_state_has_it_in_the_end(store: Store) -> None:
    after = (await store.change(limited)).record
    now = await read(store)
    assert after == now
    assert now.upstream.rate_limit_reset_at > 0


async def test_what_begins_there_is_read_by_existing_workers_and_expires(
    store: Store, client: aioredis.Redis, redis_url: str
) -> None:
    seen = await store.read()
    begun = await store.commit(seen, limited(None, seen.now))
    assert begun is not None
    assert begun.begun == begun.epoch == (await read(store)).begun
    with ExistingWorker(redis_url) as existing:
        assert existing.read()["state"] == "rate_limited"
    assert 0 < await client.ttl(store.keys.state) <= 3660


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


FLEET = 3


@pytest.fixture
def fleet(redis_url: str) -> Iterator[list[Guard]]:
    """Workers that have worked, and know the state."""
    with ExitStack() as stack:
        fleet = [stack.enter_context(Guard(Settings(redis_url))) for _ in range(FLEET)]
        for guard in fleet:
            succeed(guard)
            guard.flush()
        yield fleet


def succeed(guard: Guard, model: str = "") -> bool:
    with suppress(CallNotPermitted), guard.call(model or None) as call:
        call.answered(200)
        return True
    return False


def wait_s(guard: Guard, model: str = "") -> float:
    try:
        with guard.call(model or None) as call:
            call.answered(200)
    except CallNotPermitted as refused:
        return refused.retry_after_s
    return 0.0


async def lost(client: aioredis.Redis, fleet: list[Guard]) -> None:
    """All data, and calls go on: the first result that is counted, or the first look, begins a new state."""
    await client.flushall()
    await asyncio.to_thread(succeed, fleet[-1])
    await asyncio.to_thread(fleet[-1].flush)


async def all_wait(fleet: list[Guard], at_least_s: float, model: str = "") -> None:
    await asyncio.to_thread(until, lambda: all(wait_s(guard, model) >= at_least_s for guard in fleet))


async def test_a_rate_limit_of_a_fleet_whose_breaker_never_opened_is_written_back(
    client: aioredis.Redis, store: Store, fleet: list[Guard]
) -> None:
    with fleet[0].call() as call:
        call.answered(429, headers={"Retry-After": "250"})
    await all_wait(fleet, 240)
    before = (await read(store)).upstream.rate_limit_reset_at
    for _ in range(3):
        await lost(client, fleet)
        assert all([await asyncio.to_thread(wait_s, guard) > 230 for guard in fleet])

        async def is_back() -> bool:
            record = (await store.read()).record
            return record is not None and record.upstream.rate_limit_reset_at == before

        await eventually(is_back)


async def test_an_override_is_written_back(
    client: aioredis.Redis, redis_url: str, store: Store, fleet: list[Guard]
) -> None:
    async with OpenRouterStateManager(redis_url) as manager:
        await manager.set_override("forced_open", who="ann", why="a test", for_s=900)
    await all_wait(fleet, 800)
    await lost(client, fleet)
    assert all([await asyncio.to_thread(wait_s, guard) > 800 for guard in fleet])

    async def is_back() -> bool:
        seen = await store.read()
        return seen.record is not None and seen.record.standing(seen.now) is not None

    await eventually(is_back)


async def test_the_cooldown_of_a_model_is_written_back(
    client: aioredis.Redis, store: Store, fleet: list[Guard]
) -> None:
    body = {"error": {"code": 429, "message": "busy", "metadata": {"provider_name": "Someone"}}}
    with fleet[0].call("some/model") as call:
        call.answered(429, headers={"Retry-After": "500"}, body=body)
    await all_wait(fleet, 400, "some/model")
    await lost(client, fleet)
    assert all([await asyncio.to_thread(wait_s, guard, "some/model") > 400 for guard in fleet])

    async def is_back() -> bool:
        return "some/model" in (await store.read()).models

    await eventually(is_back)


async def test_nobody_ever_sees_a_closed_state_where_an_open_one_was_known(
    client: aioredis.Redis, store: Store, fleet: list[Guard]
) -> None:
    for guard in fleet:
        await asyncio.to_thread(fail, guard, 5)

    async def is_known() -> bool:
        record = await read(store)
        is_open = isinstance(record.breaker, Open)
        return is_open and all(guard.state.epoch == record.epoch for guard in fleet)

    await eventually(is_known)
    for _ in range(20):
        await client.delete("openrouter:state")
        while (state := await client.hmget("openrouter:state", "epoch", "breaker", "open_until"))[0] is None:
            await asyncio.to_thread(fleet[0].flush)
        assert state[1] == "open"
        assert state[2]
