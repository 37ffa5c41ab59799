"""The store on Sentinels and on a Cluster, during failovers."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from openrouter_guard.address import parse_address
from openrouter_guard.errors import ConfigurationError, StoreRefused, StoreUnavailable
from openrouter_guard.keys import Keys
from openrouter_guard.probe import read
from openrouter_guard.rules.breaker import Open
from openrouter_guard.store import Batch, Store
from tests.service.apps import eventually
from tests.store.batches import failed_calls, failures, report, settle, store_at
from tests.topologies import Cluster, Watched, cluster, cluster_with_a_spare, kill, watched
from tests.valkeys import valkey

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[2] / "docs" / "redis.md"
SCOPE = "main"
REPORTERS = 8


class Fleet:
    """Reports failures without a break, again and again where it is not sure, and keeps count of what was taken."""

    def __init__(self, url: str, scope: str) -> None:
        self.taken = 0
        self.by = Counter[int]()
        self.refused: list[str] = []
        self._url = url
        self._scope = scope

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        self._stop = asyncio.Event()
        async with asyncio.TaskGroup() as reporters:
            for number in range(REPORTERS):
                reporters.create_task(self._report(f"w{number}"))
            await self.takes(100)
            yield
            await self.takes(100)
            self._stop.set()

    @property
    def told(self) -> range:
        """How many may be there after a primary failed: none twice, and what it had not passed on is lost.

        It passes them on in the instant in which it answers, so of each reporter the last one is at stake.
        """
        return range(self.taken - REPORTERS, self.taken + 1)

    async def takes(self, more: int) -> None:
        """Wait until so many more have been taken."""
        wanted = self.taken + more
        await eventually(lambda: self.taken >= wanted, seconds=60)

    async def _report(self, reporter: str) -> None:
        async with store_at(self._url, self._scope) as store:
            while not self._stop.is_set():
                batch = failures(1, reporter)
                await eventually(partial(self._is_taken, store, batch), seconds=60)
                self.taken += 1

    async def _is_taken(self, store: Store, batch: Batch) -> bool:
        try:
            await store.count(batch, at=time.time())
        except StoreUnavailable:
            return False
        except StoreRefused as error:
            self.refused.append(str(error))
            return False
        client = store._connection._client
        self.by[client.connection_pool.connection_kwargs["port"] if client else 0] += 1
        return True


async def opens(store: Store) -> bool:
    """Whether somebody who listens hears that five failures open the breaker."""
    async with aclosing(store.listen()) as wakes:
        await anext(wakes)
        for _ in range(5):
            await report(store)
        record = (await store.change(settle)).record
        await asyncio.wait_for(anext(wakes), 30)
    return record is not None and isinstance(record.breaker, Open)


class TestSentinels:
    @pytest.fixture
    def them(self) -> Iterator[Watched]:
        with watched() as them:
            yield them

    @pytest.mark.parametrize("fail", [Watched.kill_primary, Watched.freeze_primary])
    async def test_a_primary_that_fails_under_load_costs_no_report(
        self, them: Watched, fail: Callable[[Watched], None]
    ) -> None:
        fleet = Fleet(them.url(), "default")
        async with fleet.at_work():
            fail(them)
        async with store_at(them.url()) as store:
            assert await failed_calls(store) in fleet.told
            assert them.is_promoted()
            assert await opens(store)

    async def test_where_two_are_primaries_only_what_the_old_one_takes_is_lost(self, them: Watched) -> None:
        """Redis' own doing: until it is told, it answers as before, and passes nothing on."""
        fleet = Fleet(them.url(), "default")
        async with fleet.at_work():
            # Nobody knows when in there the other one was promoted.
            before = fleet.by[them.primary.port]
            them.sentinel().execute_command("SENTINEL", "FAILOVER", "main")
            await eventually(them.is_promoted, seconds=60)
            await eventually(lambda: them.primary.client().role()[0] == b"slave", seconds=60)
        at_stake = fleet.by[them.primary.port] - before
        async with store_at(them.url()) as store:
            assert fleet.taken - at_stake - REPORTERS <= await failed_calls(store) <= fleet.taken

    async def test_one_that_is_demoted_while_it_lives_is_left(self, them: Watched) -> None:
        fleet = Fleet(them.url(), "default")
        async with fleet.at_work():
            for option in ("down-after-milliseconds", "failover-timeout"):
                # Nor is it taken for dead meanwhile, because the machine is busy.
                them.sentinel().execute_command("SENTINEL", "SET", "main", option, 60_000)
            them.sentinel().execute_command("SENTINEL", "FAILOVER", "main", "COORDINATED")
            await eventually(lambda: them.primary.client().role()[0] == b"slave", seconds=60)
        async with store_at(them.url()) as store:
            assert await failed_calls(store) == fleet.taken


@pytest.fixture(scope="module")
def at_rest() -> Iterator[Watched]:
    """Whom nobody kills."""
    with watched() as them:
        yield them


async def test_a_name_that_they_do_not_know_is_said(at_rest: Watched) -> None:
    async with store_at(at_rest.url("other")) as store:
        with pytest.raises(StoreRefused, match=r"do not name the address .* \(they watch nothing called 'other'\)"):
            await report(store)
    with pytest.raises(StoreRefused, match="do not name the address of Redis"):
        read(parse_address(at_rest.url("other")), "default", 1.0)


async def test_who_is_no_sentinel_is_said(at_rest: Watched) -> None:
    url = f"redis+sentinel://127.0.0.1:{at_rest.replica.port}/main"
    async with store_at(url) as store:
        with pytest.raises(StoreRefused, match=r"do not name the address of Redis \(unknown command 'SENTINEL'"):
            await report(store)


async def test_the_probe_asks_them_too(at_rest: Watched) -> None:
    async with store_at(at_rest.url()) as store:
        await report(store, 3)
    record, _ = read(parse_address(at_rest.url()), "default", 1.0)
    assert record is not None
    assert record.breaker.failures == 3


async def test_sentinels_may_ask_for_a_password() -> None:
    with watched(password="hunter2") as them:
        async with store_at(them.url()) as store:
            await report(store)
        assert read(parse_address(them.url()), "default", 1.0)[0] is not None
        url = them.url().partition("?")[0]
        async with store_at(url) as store:
            with pytest.raises(
                StoreRefused, match=r"do not name the address.*sentinel_username and sentinel_password"
            ):
                await report(store)


async def test_a_user_of_theirs_needs_no_more_than_the_documented_rights(at_rest: Watched) -> None:
    (rights,) = re.findall(r"On the Sentinels, a user needs ([^.]+)\.", DOCS.read_text())
    at_rest.sentinel().execute_command(
        "ACL", "SETUSER", "asker", "reset", "on", ">pw", *re.findall(r"\+[^`]+", rights)
    )
    login = "sentinel_username=asker&sentinel_password=pw"
    async with store_at(f"{at_rest.url()}?{login}") as store:
        await report(store)
    assert at_rest.sentinel().acl_log() == []


async def test_without_any_sentinel_it_is_away() -> None:
    async with store_at("redis+sentinel://127.0.0.1:1,127.0.0.1:2/main") as store:
        with pytest.raises(StoreUnavailable, match=r"none of the Sentinels of redis\+sentinel://.*/main/0 answers"):
            await report(store)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    with cluster() as nodes:
        yield nodes


class TestACluster:
    @pytest.fixture
    def slot(self, nodes: Cluster) -> int:
        return nodes.slot_of(Keys(SCOPE).state)

    @pytest.fixture
    def them(self, nodes: Cluster, slot: int) -> Cluster:
        """Empty, and the slot where it was in the beginning."""
        nodes.bring_back(slot)
        return nodes

    @pytest.fixture
    async def on_cluster(self, them: Cluster) -> AsyncIterator[Store]:
        async with store_at(them.url, SCOPE) as store:
            yield store

    async def test_a_slot_that_moves_under_load_costs_no_report(
        self, them: Cluster, on_cluster: Store, slot: int
    ) -> None:
        fleet = Fleet(them.url, SCOPE)
        async with fleet.at_work():
            await asyncio.to_thread(them.move_at_once, slot, them.first, them.second)
            await fleet.takes(100)
            await asyncio.to_thread(them.move_at_once, slot, them.second, them.first)
        assert await failed_calls(on_cluster) == fleet.taken
        assert fleet.refused == []
        assert await opens(on_cluster)

    async def test_nor_does_one_that_moves_key_by_key(self, them: Cluster, on_cluster: Store, slot: int) -> None:
        fleet = Fleet(them.url, SCOPE)
        async with fleet.at_work():
            for key in them.begin_move(slot, them.first, them.second):
                them.move_key(key, them.first, them.second)
                # Some of the keys here, some there: nothing can be counted for a moment.
                await asyncio.sleep(0.05)
            await fleet.takes(50)
            them.end_move(slot, them.second)
        assert await failed_calls(on_cluster) == fleet.taken
        assert fleet.refused == []
        assert await opens(on_cluster)

    async def test_who_listens_at_any_node_hears_of_a_change(
        self, them: Cluster, on_cluster: Store, slot: int
    ) -> None:
        async with (
            store_at(f"redis+cluster://127.0.0.1:{them.second.port}", SCOPE) as other,
            aclosing(other.listen()) as wakes,
        ):
            await anext(wakes)
            for _ in range(5):
                await report(on_cluster)
            await on_cluster.change(settle)
            await asyncio.wait_for(anext(wakes), 30)

    async def test_the_probe_is_sent_on_too(self, them: Cluster, on_cluster: Store, slot: int) -> None:
        await report(on_cluster, 3)
        for url in (them.url, f"redis+cluster://127.0.0.1:{them.second.port}"):
            record, _ = read(parse_address(url), SCOPE, 1.0)
            assert record is not None
            assert record.breaker.failures == 3
        for key in them.begin_move(slot, them.first, them.second):
            them.move_key(key, them.first, them.second)
        assert read(parse_address(them.url), SCOPE, 1.0)[0] == record

    async def test_the_default_scope_is_refused_there(self, them: Cluster) -> None:
        with pytest.raises(ConfigurationError, match="such as OPENROUTER_GUARD_SCOPE=main"):
            Store.from_url(them.url)
        with pytest.raises(ConfigurationError, match="such as OPENROUTER_GUARD_SCOPE=main"):
            read(parse_address(them.url).for_scope("default"), "default", 1.0)

    async def test_a_node_that_is_addressed_as_a_server_says_so(self, them: Cluster) -> None:
        async with store_at(f"redis://127.0.0.1:{them.second.port}") as store:
            with pytest.raises(StoreRefused, match=r"is a node of a Cluster: write redis\+cluster://"):
                await report(store)


async def test_a_server_is_reached_by_its_socket(tmp_path: Path) -> None:
    socket = tmp_path / "valkey.sock"
    with valkey(unixsocket=socket):
        url = f"unix://{socket}?db=1"
        async with store_at(url) as store:
            assert await opens(store)
        record, _ = read(parse_address(url), "default", 1.0)
        assert record is not None
        assert isinstance(record.breaker, Open)


async def test_a_server_that_is_addressed_as_a_cluster_works_all_the_same(redis_url: str) -> None:
    async with store_at(redis_url.replace("redis://", "redis+cluster://"), SCOPE) as store:
        assert await opens(store)


async def test_a_node_of_a_cluster_that_dies_under_load_costs_no_report(nodes: Cluster) -> None:
    slot = nodes.slot_of(Keys(SCOPE).state)
    with cluster_with_a_spare(slot) as (url, owner):
        fleet = Fleet(url, SCOPE)
        async with fleet.at_work():
            kill(owner)
        async with store_at(url, SCOPE) as store:
            assert await failed_calls(store) in fleet.told
            assert await opens(store)
