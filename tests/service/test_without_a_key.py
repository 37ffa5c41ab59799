"""A service without an API key beside others that have one: it shares their knowledge, and does them no harm."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import httpx
import pytest
import redis.asyncio as aioredis

from openrouter_guard.rules.breaker import BreakerState, Policy
from openrouter_guard.settings import Settings, Thresholds
from openrouter_guard.store import Store
from tests.service.apps import FORCED, STATE, FakeUpstream, ask, eventually, open_breaker, running
from tests.service.test_known_state import gauges

pytestmark = pytest.mark.slow

OF_CHECKS = ("checked_at", "check_slot", "check_found", "good_checks", "state", "message", "balance", "error_details")


async def of_checks(client: aioredis.Redis) -> list[Any]:
    found: list[Any] = await client.hmget(STATE, *OF_CHECKS)
    return found


@asynccontextmanager
async def side_by_side(
    settings: Settings, upstream: FakeUpstream
) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """One with a key, and one without."""
    async with AsyncExitStack() as stack:
        keyed = await stack.enter_async_context(running(settings, upstream))
        await eventually(lambda: upstream.calls)
        yield keyed, await stack.enter_async_context(running(replace(settings, api_key=""), upstream))


async def is_known(service: httpx.AsyncClient) -> bool:
    """Whether it has heard of a check that was made."""
    return (await ask(service))["last_check"] is not None


async def test_it_tells_what_they_found_and_how_old_that_is(settings: Settings, upstream: FakeUpstream) -> None:
    async with side_by_side(settings, upstream) as (keyed, keyless):
        for each in (keyed, keyless):
            await eventually(partial(is_known, each))
        known, told = await ask(keyed), await ask(keyless)
        ages = [(await gauges(each, "state_age_seconds"))[""] for each in (keyed, keyless)]
    same = ("status", "message", "balance", "last_check", "circuit_breaker")
    assert {name: told[name] for name in same} == {name: known[name] for name in same}
    assert told["status"] == "active"
    assert 0 <= told["age_seconds"] < 30
    assert all(0 <= age < 30 for age in ages)


async def test_however_often_it_is_asked_it_changes_nothing(
    settings: Settings, upstream: FakeUpstream, client: aioredis.Redis
) -> None:
    thresholds = Thresholds(fresh_s=0.05, stale_s=0.1, check_slot_s=0.05)
    async with running(replace(settings, thresholds=Thresholds(check_slot_s=0.05)), upstream):

        async def is_written() -> bool:
            return bool(await client.hexists(STATE, "checked_at"))

        await eventually(is_written)  # the check was made some time before
    before = await of_checks(client)
    async with running(replace(settings, api_key="", thresholds=thresholds), upstream) as keyless:
        for _ in range(5):
            await asyncio.sleep(0.3)
            await ask(keyless, FORCED)
        told = await ask(keyless)
    assert await of_checks(client) == before
    assert (told["status"], told["age_seconds"]) == ("api_key_missing", None)  # by now nobody else asks
    assert upstream.calls == 1


async def test_their_good_checks_close_a_breaker_that_no_worker_tries(
    settings: Settings, upstream: FakeUpstream, store: Store
) -> None:
    """Two in a row do; what it has to say is none between them."""
    policy = Policy(reset_timeout_s=0.2, trial_wait_s=0.1)
    quick = replace(settings, policy=policy, thresholds=Thresholds(check_slot_s=0.3))
    await open_breaker(store, quick)
    async with side_by_side(quick, upstream) as (_, keyless):

        async def is_closed() -> bool:
            await ask(keyless, FORCED)
            seen = await store.read()
            return seen.record is not None and seen.record.phase(seen.now) is BreakerState.CLOSED

        await eventually(is_closed)
    assert (await store.history())[0]["reason"] == "checks_succeeded"


async def test_where_nobody_knows_anything_all_are_told_why(
    settings: Settings, upstream: FakeUpstream, client: aioredis.Redis
) -> None:
    async with running(replace(settings, api_key=""), upstream) as keyless:
        await eventually(lambda: client.exists(STATE))
        told = await ask(keyless)
        ages = await gauges(keyless, "state_age_seconds")
        written = await client.hgetall(STATE)
        await ask(keyless, FORCED)
        assert (await client.hget(STATE, "version")) == written["version"]
    assert (written["state"], "checked_at" in written, "check_slot" in written) == ("api_key_missing", False, False)
    assert (told["status"], told["last_check"], math.isnan(ages[""])) == ("api_key_missing", None, True)
    assert upstream.calls == 0


async def test_what_it_wrote_keeps_nobody_from_asking(settings: Settings, upstream: FakeUpstream) -> None:
    async with running(replace(settings, api_key=""), upstream) as keyless:
        await ask(keyless)
        async with running(settings, upstream):
            await eventually(lambda: upstream.calls)

            async def knows() -> bool:
                told = await ask(keyless)
                return bool(told["status"] == "active")

            await eventually(knows)
