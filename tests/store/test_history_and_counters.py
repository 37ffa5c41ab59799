"""The history on a real Valkey: exact, and bounded in size."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
import redis.asyncio as aioredis

from openrouter_guard.rules import shared_state, transitions
from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.rules.codec import iso
from openrouter_guard.rules.override import Override, OverrideKind
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.rules.units import DAY_S
from openrouter_guard.store import Batch, Store

ROUNDING_S = 0.005
STATE, HISTORY = "openrouter:state", "openrouter:history"


def force_open(record: SharedState | None, now: float, *, for_s: float = 60.0) -> SharedState:
    override = Override(OverrideKind.FORCED_OPEN, "ann", "a test", now + for_s)
    return transitions.overridden(record or shared_state.fresh(now), override, now)


def release(record: SharedState | None, now: float) -> SharedState | None:
    return record and transitions.released(record, by="ann", now=now)


async def began(store: Store, client: aioredis.Redis, ago_s: float) -> float:
    """A closed state whose time was last put down *ago_s* before; returns since when."""
    await store.change(lambda record, now: record or shared_state.fresh(now))
    since = round(time.time() - ago_s, 3)
    await client.hset(STATE, "timed_until", iso(since))
    return since


async def total_s(store: Store, phase: BreakerState, days: int = 30) -> float:
    return sum(day[phase] for day in (await store.time_in_state(days, time.time())).values())


async def nothing_is_missing(store: Store, since: float, *phases: BreakerState) -> None:
    """The time in these states, all if none is named, is what has passed since."""
    before_s = time.time()
    told = await store.time_in_state(30, before_s)
    after_s = time.time()
    whole_s = sum(day[phase] for day in told.values() for phase in phases or BreakerState)
    assert before_s - since - ROUNDING_S <= whole_s <= after_s - since + ROUNDING_S


class TestTimeInState:
    async def test_is_told_up_to_this_moment(self, store: Store, client: aioredis.Redis) -> None:
        since = await began(store, client, 5)
        await nothing_is_missing(store, since, BreakerState.CLOSED)

    async def test_of_a_whole_day_is_exactly_a_day(self, store: Store, client: aioredis.Redis) -> None:
        since = await began(store, client, 3 * DAY_S)
        told = await store.time_in_state(4, time.time())
        whole = dict.fromkeys(BreakerState, 0.0) | {BreakerState.CLOSED: float(DAY_S)}
        assert list(told.values())[1:3] == [whole, whole]
        assert list(told) == sorted(told, reverse=True)
        assert list(told)[-1] == datetime.fromtimestamp(since, UTC).date().isoformat()

    async def test_survives_a_transition_a_restart_and_the_loss_of_the_history(
        self, store: Store, client: aioredis.Redis, redis_url: str
    ) -> None:
        since = await began(store, client, 3 * DAY_S)
        await store.change(force_open)
        await client.delete(HISTORY)
        another = Store.from_url(redis_url)
        await another.change(release)
        assert await total_s(another, BreakerState.OPEN) > 0
        await nothing_is_missing(another, since)
        await another.close()

    async def test_that_a_crash_left_undone_is_told_all_the_same(self, store: Store, client: aioredis.Redis) -> None:
        """Nobody came to close what a person had opened for a minute, or to open what nobody released."""
        await store.change(force_open)
        until = time.time() - 100
        row = json.loads(str(await client.hget(STATE, "override"))) | {"until": until}
        await client.hset(STATE, mapping={"override": json.dumps(row), "timed_until": iso(until - 60)})
        assert await total_s(store, BreakerState.OPEN) == pytest.approx(60, abs=0.002)
        await nothing_is_missing(store, until, BreakerState.CLOSED)

    async def test_is_put_down_once_however_many_do_it(
        self, store: Store, client: aioredis.Redis, redis_url: str
    ) -> None:
        since = await began(store, client, 2 * DAY_S)
        others = [Store.from_url(redis_url) for _ in range(20)]
        work = [other.keep_time() if i % 2 else other.change(force_open) for i, other in enumerate(others)]
        await asyncio.gather(*work)
        await asyncio.gather(*(other.close() for other in others))
        await nothing_is_missing(store, since)

    async def test_goes_on_after_the_state_expired_from_when_somebody_is_there(
        self, store: Store, client: aioredis.Redis
    ) -> None:
        await began(store, client, 500)
        await store.keep_time()
        put_down_s = await total_s(store, BreakerState.CLOSED)
        await client.delete(STATE)
        again_s = time.time()
        await store.count(Batch(0, "wa", 1, [("S", 1)]), at=time.time())
        assert (
            500 - ROUNDING_S
            <= await total_s(store, BreakerState.CLOSED)
            <= put_down_s + time.time() - again_s + ROUNDING_S
        )

    async def test_is_kept_for_thirty_days(self, store: Store, client: aioredis.Redis) -> None:
        await began(store, client, 3600)
        await store.keep_time()
        assert await client.ttl(store.keys.metrics(time.time())) == pytest.approx(30 * DAY_S, abs=5)
        assert len(await store.time_in_state(1000, time.time())) <= 31

    async def test_is_not_among_the_counters(self, store: Store, client: aioredis.Redis) -> None:
        await began(store, client, 100)
        await store.keep_time()
        await store.add_metrics({"total_calls": 1}, at=time.time())
        assert next(iter((await store.metrics(1, time.time())).values())) == {"total_calls": "1"}

    async def test_does_not_keep_the_breaker_from_changing_where_it_cannot_be_put_down(
        self, store: Store, client: aioredis.Redis
    ) -> None:
        await began(store, client, 5)
        await client.set(store.keys.metrics(time.time()), "a text of somebody else")
        await store.change(force_open)
        assert (await store.read()).record is not None
        assert await client.hget(STATE, "circuit_breaker_open") == "true"


class TestHistory:
    async def test_is_read_on_where_the_last_answer_ended(self, store: Store) -> None:
        for _ in range(4):
            await store.change(force_open)
        whole = await store.history()
        first = await store.history(3)
        rest = await store.history(3, before=f"{first[-1]['epoch']}-0")
        assert [entry["epoch"] for entry in first + rest] == [entry["epoch"] for entry in whole]
        assert (len(first), len(rest)) == (3, 1)

    @pytest.mark.parametrize("is_left", [True, False], ids=["an entry", "an entry that is gone"])
    @pytest.mark.parametrize(
        "ids",
        [["a minute ahead"], ["9000000000000-3", f"{2**64 - 1}-{2**64 - 1}"]],
        ids=["now", "far ahead"],
    )
    async def test_what_somebody_else_put_there_keeps_nothing_out(
        self, store: Store, client: aioredis.Redis, is_left: bool, ids: list[str]
    ) -> None:
        await client.xadd(HISTORY, {"note": "before"}, id="7-7")
        await store.change(force_open)
        soon = f"{int(time.time() * 1000) + 60_000}-7"
        ids = [soon if each == "a minute ahead" else each for each in ids]
        others = [await client.xadd(HISTORY, {"note": "mine"}, id=each) for each in ids]
        if not is_left:
            await client.xdel(HISTORY, *others)
        await store.change(release)
        told = await store.history()
        epoch = int(told[0]["epoch"])
        assert [entry["reason"] for entry in told] == ["override_ended", "forced_open"]
        # What is not ours and in nobody's way stays; what is noted within an epoch is noted once.
        assert "before" in str(await client.xrange(HISTORY))
        assert await store.note(told[0], epoch=epoch, seq=5)
        assert not await store.note(told[0], epoch=epoch, seq=5)
        assert not await store.note(told[0], epoch=epoch, seq=4)
        assert [entry["seq"] for entry in await store.history()] == ["5", "0", "0"]

    async def test_what_is_noted_is_not_kept_out_either(self, store: Store, client: aioredis.Redis) -> None:
        await store.change(force_open)
        (entry,) = await store.history()
        await client.xadd(HISTORY, {"note": "mine"}, id="9000000000000-0")
        assert await store.note(entry, epoch=int(entry["epoch"]), seq=1)

    async def test_who_reads_it_takes_what_is_in_the_way_out(self, store: Store, client: aioredis.Redis) -> None:
        """Whoever writes may have no right to."""
        await store.change(force_open)
        await client.xadd(HISTORY, {"note": "mine"}, id="9000000000000-0")
        assert len(await store.history()) == 1
        assert await client.xlen(HISTORY) == 1


class TestWorkers:
    async def test_are_those_that_were_alive_lately_the_last_seen_first(self, store: Store) -> None:
        now = time.time()
        for name, ago_s in (("old", 300.0), ("new", 1.0), ("gone", 900.0)):
            await store.heartbeat(name, {"version": "1.0", "last_seen": iso(now - ago_s)})
        found = await store.workers()
        assert list(found) == ["new", "old"]
        assert found["new"] == {"version": "1.0", "last_seen": iso(now - 1)}

    async def test_are_no_more_than_asked_for(self, store: Store) -> None:
        for number in range(5):
            await store.heartbeat(f"w{number}", {"last_seen": iso(time.time() - number)})
        assert list(await store.workers(2)) == ["w0", "w1"]

    async def test_that_somebody_makes_up_without_end_are_bounded(self, store: Store, client: aioredis.Redis) -> None:
        now = time.time()
        made_up = {f"w{number}": json.dumps({"last_seen": iso(now - number / 100)}) for number in range(10_050)}
        await client.hset(store.keys.workers, mapping=made_up)  # type: ignore[arg-type]
        await store.heartbeat("newest", {"last_seen": iso(now)})
        assert await client.hlen(store.keys.workers) == 10_000
        assert await client.hmget(store.keys.workers, "w10000", "w9999") == [None, None]
        assert list(await store.workers(1)) in (["newest"], ["w0"])

    async def test_that_are_gone_are_forgotten_when_another_comes(self, store: Store, client: aioredis.Redis) -> None:
        gone: dict[Any, Any] = {
            f"gone{number}": json.dumps({"last_seen": iso(time.time() - 700)}) for number in range(50)
        }
        await client.hset(store.keys.workers, mapping={**gone, "broken": "no JSON"})
        await store.heartbeat("new", {"last_seen": iso(time.time())})
        assert await client.hkeys(store.keys.workers) == ["new"]
        assert await client.ttl(store.keys.workers) == pytest.approx(600, abs=5)


class TestWorkerErrors:
    async def test_are_the_newest_first_across_midnight(self, store: Store) -> None:
        now = time.time()
        for number, at in enumerate((now - DAY_S, now)):
            errors = [json.dumps({"error_type": f"{number}{letter}"}) for letter in "ab"]
            await store.count(Batch(0, "wa", number + 1, [("F", 2)], errors=errors), at=at)
        assert [row["error_type"] for row in await store.worker_errors(now=now)] == ["1b", "1a", "0b", "0a"]
        assert [row["error_type"] for row in await store.worker_errors(3, now=now)] == ["1b", "1a", "0b"]

    async def test_that_cannot_be_read_are_left_out(self, store: Store, client: aioredis.Redis) -> None:
        await client.lpush(store.keys.worker_errors(time.time()), '{"error_type": "timeout"}', "no JSON", "[1]")
        assert await store.worker_errors(now=time.time()) == [{"error_type": "timeout"}]


class TestPaused:
    async def test_is_what_each_operator_said_last(self, store: Store) -> None:
        await store.tell_paused("east", {"workloads": 2, "last_seen": iso(time.time() - 60)})
        await store.tell_paused("west", {"workloads": 1, "last_seen": iso(time.time() - 30)})
        await store.tell_paused("east", {"workloads": 3, "last_seen": iso(time.time())})
        assert [(name, about["workloads"]) for name, about in (await store.paused()).items()] == [
            ("east", 3),
            ("west", 1),
        ]

    async def test_of_an_operator_that_fell_silent_a_day_ago_is_not_told(self, store: Store) -> None:
        await store.tell_paused("east", {"workloads": 2, "last_seen": iso(time.time() - DAY_S - 1)})
        assert await store.paused() == {}
