"""Shared reads: concurrent and for a moment, but never a failure or an old state."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio as aioredis

from openrouter_guard.api.scope import read_cache
from openrouter_guard.api.scope.read_cache import ReadCache
from openrouter_guard.errors import StoreUnavailable
from openrouter_guard.settings import Settings
from openrouter_guard.store import Store
from tests.service.apps import FakeUpstream, eventually, open_breaker, running

HISTORY = "/api/v1/openrouter/history"


class Reads:
    """A read that waits for its gate, and may fail."""

    def __init__(self) -> None:
        self.count = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.count += 1
        number = self.count
        await self.gate.wait()
        if self.error:
            raise self.error
        return number


async def test_those_who_ask_at_the_same_time_share_one_read() -> None:
    shared, read = ReadCache(), Reads()
    read.gate.clear()
    waiting = [asyncio.create_task(shared.get("history", 1, read)) for _ in range(10)]
    await asyncio.sleep(0)
    read.gate.set()
    assert await asyncio.gather(*waiting) == [(1, False)] * 10
    assert await shared.get("history", 1, read) == (1, True)


@pytest.mark.parametrize(
    ("question", "version"),
    [pytest.param("history", 2, id="another state"), pytest.param("workers", 1, id="another")],
)
async def test_anything_else_is_read_anew(question: str, version: int) -> None:
    shared, read = ReadCache(), Reads()
    await shared.get("history", 1, read)
    assert await shared.get(question, version, read) == (2, False)


async def test_after_a_moment_it_is_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_cache, "KEEP_S", -1.0)
    shared, read = ReadCache(), Reads()
    assert [await shared.get("history", 1, read) for _ in range(2)] == [(1, False), (2, False)]


async def test_a_failure_is_told_to_those_who_wait_and_not_kept() -> None:
    shared, read = ReadCache(), Reads()
    read.error = StoreUnavailable("away")
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await shared.get("history", 1, read)
    read.error = None
    assert await shared.get("history", 1, read) == (3, False)


async def test_who_stops_waiting_stops_nobody_else() -> None:
    shared, read = ReadCache(), Reads()
    read.gate.clear()
    hasty, patient = (asyncio.create_task(shared.get("history", 1, read)) for _ in range(2))
    await asyncio.sleep(0)
    hasty.cancel()
    await asyncio.sleep(0)
    read.gate.set()
    assert await patient == (1, False)


async def test_only_so_many_are_kept() -> None:
    shared, read = ReadCache(), Reads()
    for number in range(read_cache._KEPT + 1):
        await shared.get(number, 1, read)
    assert len(shared._reads) == read_cache._KEPT
    assert (await shared.get(0, 1, read))[1] is False


async def test_the_end_leaves_no_read_behind() -> None:
    shared, read = ReadCache(), Reads()
    before = asyncio.all_tasks()
    read.gate.clear()
    waiting = asyncio.create_task(shared.get("history", 1, read))
    await asyncio.sleep(0)
    await shared.stop()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert asyncio.all_tasks() == before


class TestOverHttp:
    async def reads(self, client: aioredis.Redis) -> int:
        stats = await client.info("commandstats")
        return int(stats.get("cmdstat_xrevrange", {}).get("calls", 0))

    async def test_a_hundred_viewers_cost_a_read_a_moment(
        self, settings: Settings, upstream: FakeUpstream, client: aioredis.Redis
    ) -> None:
        async with running(settings, upstream) as service:
            before = await self.reads(client)
            answers = await asyncio.gather(*(service.get(HISTORY) for _ in range(100)))
            assert await self.reads(client) - before < 10
            assert {answer.status_code for answer in answers} == {200}

            async def hit() -> bool:
                return (await service.get(HISTORY)).headers["x-cache"] == "HIT"

            await eventually(hit)

    async def test_what_happens_is_there_at_once(
        self, settings: Settings, upstream: FakeUpstream, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(read_cache, "KEEP_S", 60.0)
        async with running(settings, upstream) as service:
            assert (await service.get(HISTORY)).json()["transitions"] == []
            await open_breaker(store, settings)

            async def told() -> bool:
                return len((await service.get(HISTORY)).json()["transitions"]) == 1

            await eventually(told)
