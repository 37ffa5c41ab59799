"""The data in Redis after a fleet has worked, read without our code: keys, types, expiries and messages.

Systems of the existing format and tools of other people read it.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from datetime import UTC, datetime

import pytest
import redis.asyncio as aioredis
from redis.asyncio.client import PubSub

from openrouter_guard import CallNotPermitted, Guard, Settings
from openrouter_guard.rules.breaker import BreakerState, Policy
from openrouter_guard.rules.transitions import now_closed
from openrouter_guard.store import Store
from tests.service.apps import eventually
from tests.store.batches import report, settle
from tests.waiting import until

DAY_S = 86_400
KINDS = {
    "state": ("hash", 3600 + 10),
    "metrics:{date}": ("hash", 30 * DAY_S),
    "worker_errors:{date}": ("list", 7 * DAY_S),
    "history": ("stream", -1),
    "models": ("hash", 26 * 3600),
    "workers": ("hash", 600),
}
"""The type of each key, and how many seconds it lives: while the breaker is open."""


@pytest.fixture(params=["default", "team-a"])
def scope(request: pytest.FixtureRequest) -> str:
    scope: str = request.param
    return scope


def key(scope: str, name: str) -> str:
    """As the documentation writes it."""
    prefix = "openrouter:" if scope == "default" else "openrouter:{team-a}:"
    return prefix + name.replace("{date}", datetime.now(UTC).strftime("%Y-%m-%d"))


async def test_every_key_is_of_its_type_and_lives_as_long_as_it_should(
    client: aioredis.Redis, redis_url: str, scope: str
) -> None:
    with Guard(Settings(redis_url, scope, worker_id="worker-a")) as guard:
        for status_code in (200, *[503] * 5):
            with guard.call("some/model") as call:
                call.answered(status_code)
        guard.flush()
        await asyncio.to_thread(until, lambda: guard.state.phase is BreakerState.OPEN)
        with suppress(CallNotPermitted), guard.call():
            pass
        guard.flush()
        # A worker shows itself once it knows the state.
        await eventually(lambda: client.exists(key(scope, "workers")))
    assert {str(name) for name in await client.keys("*")} == {key(scope, name) for name in KINDS}
    for name, (kind, life_s) in KINDS.items():
        assert await client.type(key(scope, name)) == kind
        assert await client.ttl(key(scope, name)) == pytest.approx(life_s, abs=60)


async def test_a_field_of_a_newer_version_is_ignored_and_kept(store: Store, client: aioredis.Redis) -> None:
    await client.hset("openrouter:state", "from_a_newer_version", "1")
    await report(store, 5)
    await store.change(settle)
    assert await client.hget("openrouter:state", "state") != "active"
    assert await client.hget("openrouter:state", "from_a_newer_version") == "1"


async def test_each_change_is_told_on_the_channel(store: Store, client: aioredis.Redis) -> None:
    async with client.pubsub() as channel:
        await channel.subscribe("openrouter:events")
        await report(store, 5)
        opened = (await store.change(settle)).record
        closed = (await store.change(lambda record, now: record and now_closed(record, "ann", now))).record
        told = [await message(channel) for _ in range(3)]
    assert opened is not None
    assert closed is not None
    open_until = (await store.history())[1]["at"]
    assert [(event["scope"], event["breaker"]) for event in told] == [
        ("default", "closed"),
        ("default", "open"),
        ("default", "closed"),
    ]
    assert [event["epoch"] for event in told[1:]] == [str(opened.epoch), str(closed.epoch)]
    assert datetime.fromisoformat(told[1]["open_until"]) > datetime.fromisoformat(open_until)
    assert told[2]["open_until"] == ""
    assert told[1]["reason"] == (await store.history())[1]["reason"]
    assert {frozenset(event) - {"reason", "database"} for event in told} == {
        frozenset({"scope", "epoch", "breaker", "open_until"})
    }
    assert [event.get("database") for event in told] == [None, "0", "0"]


async def message(channel: PubSub) -> dict[str, str]:
    async with asyncio.timeout(30):
        while (found := await channel.get_message(ignore_subscribe_messages=True, timeout=1)) is None:
            pass
    event: dict[str, str] = json.loads(found["data"])
    return event


async def test_the_history_keeps_the_newest_ten_thousand_or_a_few_more(store: Store, client: aioredis.Redis) -> None:
    async with client.pipeline() as pipe:
        for number in range(1, 10_501):
            pipe.xadd(store.keys.history, {"to": "open"}, id=f"{number}-0")
        await pipe.execute()
    await report(store, 5)
    opened = (await store.change(settle)).record
    assert opened is not None
    assert 10_000 <= await client.xlen(store.keys.history) < 10_200
    assert [entry["epoch"] for entry in await store.history(limit=1)] == [str(opened.epoch)]


async def test_a_transition_is_in_the_history_once_whoever_appends_it(store: Store, redis_url: str) -> None:
    await report(store, 5)
    others = [Store.from_url(redis_url) for _ in range(5)]
    await asyncio.gather(*(other.change(settle) for other in others))
    await asyncio.gather(*(other.close() for other in others))
    (entry,) = await store.history()
    assert entry.keys() == {"epoch", "seq", "from", "to", "reason", "by", "at"}
    assert (entry["from"], entry["to"], entry["by"]) == ("closed", "open", "somebody")


async def test_an_open_state_outlives_the_expiry_that_an_existing_writer_sets(
    client: aioredis.Redis, redis_url: str
) -> None:
    with Guard(Settings(redis_url, policy=Policy(reset_timeout_s=60))) as guard:
        for _ in range(5):
            with suppress(TimeoutError), guard.call():
                raise TimeoutError
        guard.flush()
        deadline = await client.hget("openrouter:state", "open_until")
        before = await client.hget("openrouter:state", "epoch")
        await client.pexpire("openrouter:state", 1)

        async def is_back() -> bool:
            return await client.hget("openrouter:state", "epoch") not in (None, before)

        await eventually(is_back)
        assert await client.hget("openrouter:state", "open_until") == deadline
        assert await client.ttl("openrouter:state") == pytest.approx(3600 + 10, abs=8)
        assert guard.state.phase is BreakerState.OPEN
