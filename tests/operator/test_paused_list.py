"""The status page lists paused workloads of any number of resources, and no reconcile waits for it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from openrouter_guard import Settings
from openrouter_guard.store import Store
from openrouter_operator.shared_state.feed import Feed
from tests.operator.conftest import Fleet
from tests.operator.paused_list import CLUSTER, told
from tests.waiting import until


async def test_of_many_resources_that_pause_at_once_none_is_left_out(redis_url: str, store: Store) -> None:
    feed = Feed(Settings(redis_url), "test", lambda _: None, CLUSTER)
    await feed.start()
    for number in range(40):
        feed.tell(f"team/{number}", [f"Deployment/{number}"])
    feed.tell("team/7", [])
    async with asyncio.timeout(60):
        while (await store.paused()).get(CLUSTER, {}).get("paused") != 39:  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(0.01)
    await feed.stop()


@pytest.mark.slow
@pytest.mark.cluster
def test_what_a_deleted_resource_had_paused_is_no_longer_told_as_paused(
    fleet: Fleet, start: Any, redis_url: str
) -> None:
    start(OPENROUTER_GUARD_CLUSTER=CLUSTER)
    fleet.deploy(one=1)
    fleet.watch()
    fleet.fail()
    until(lambda: told(redis_url).get("paused") == 1)
    fleet.unwatch("default", "--timeout=15s")
    until(lambda: told(redis_url)["paused"] == 0)
