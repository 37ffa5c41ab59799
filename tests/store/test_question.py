"""The question to the fleet, on a real Valkey: asked once, answered once by each, decided once."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pytest
import redis.asyncio as aioredis

from openrouter_guard.rules import evaluation
from openrouter_guard.rules.breaker import Closed, Open
from openrouter_guard.rules.question import Question
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.rules.signals import Effect, ErrorType, Signal
from openrouter_guard.store import Batch, Store
from tests.store.batches import settle

FAILURE = Signal(Effect.FAILURE, ErrorType.SERVICE_UNAVAILABLE)
_seqs = itertools.count(1)


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[aioredis.Redis]:
    """Redis without our eyes."""
    async with aioredis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


async def fail(store: Store, reporter: str, *took_s: float, ended_at: float = 0.0) -> SharedState:
    """Report failures that ended now, and took so long."""
    ended_at = ended_at or time.time()
    evidence = (len(took_s), ended_at - max(took_s), sum(took_s), max(took_s))
    runs = [("F", len(took_s))]
    batch = Batch(0, reporter, next(_seqs), runs, first_failure_at=ended_at, evidence=evidence, are_timed=True)
    counted = await store.count(batch, at=ended_at)
    assert counted.seen.record is not None
    return counted.seen.record


async def succeed(store: Store, *, are_timed: bool = True) -> SharedState:
    batch = Batch(0, "wz", next(_seqs), [("S", 1)], last_success_at=time.time(), are_timed=are_timed)
    seen = (await store.count(batch, at=time.time())).seen
    assert seen.record is not None
    return seen.record


def closed(record: SharedState | None) -> Closed:
    assert record is not None
    assert isinstance(record.breaker, Closed)
    return record.breaker


def question(record: SharedState | None) -> Question:
    found = closed(record).question
    assert found is not None
    return found


async def asked(store: Store) -> Question:
    """A question that is out: five failures of three reporters."""
    for reporter, took_s in (("wa", (1.0, 2.0)), ("wb", (1.0, 1.0)), ("wc", (1.0,))):
        await fail(store, reporter, *took_s)
    return question((await store.change(settle)).record)


async def test_the_script_knows_of_the_calls_what_the_rules_do(store: Store) -> None:
    ended_at, known = time.time(), SharedState(epoch=7)
    for reporter, took_s in (("wa", (1.0, 2.5)), ("wb", (0.25,)), ("wc", (4.0, 1.0))):
        counted = await fail(store, reporter, *took_s, ended_at=ended_at)
        for each_s in took_s:
            known = evaluation.counted(known, FAILURE, reporter, began_at=ended_at - each_s, ended_at=ended_at)
    found, expected = closed(counted).evidence, closed(known).evidence
    assert (
        (found.timed, found.took_s, found.longest_s)
        == (5, 8.75, 4.0)
        == (
            expected.timed,
            expected.took_s,
            expected.longest_s,
        )
    )
    assert found.began_at == pytest.approx(expected.began_at, abs=1e-5)
    assert found.since == pytest.approx(expected.since, abs=1e-5)
    assert closed(await succeed(store)).evidence.timed == 0


async def test_is_asked_once_and_pushed(store: Store) -> None:
    for reporter in ("wa", "wb", "wc"):
        await fail(store, reporter, 1.0, 1.0)
    at = (await store.read()).now
    async with aclosing(store.listen()) as wakes:
        assert await anext(wakes) == ""
        # However slow this machine is: all decide at the same moment.
        asked = await asyncio.gather(*(store.change(lambda record, _: settle(record, at)) for _ in range(5)))
        number = question((await store.read()).record).number
        assert {question(each.record).number for each in asked} == {number}
        async with asyncio.timeout(20):
            assert json.loads(await anext(wakes))["question"].startswith(f"{number} ")


@pytest.mark.parametrize(
    ("others", "mute"),
    [
        pytest.param((), 0, id="nobody else"),
        pytest.param(("wb", "c1"), 0, id="a worker of the library, and a health check"),
        pytest.param(("wb", "h1", "i2"), 2, id="workers that report over HTTP, and by the older classes"),
    ],
)
async def test_during_a_run_those_that_cannot_be_asked_are_counted(
    store: Store, client: aioredis.Redis, others: tuple[str, ...], mute: int
) -> None:
    # Reporters of two minutes ago are no live ones.
    await client.hset("openrouter:state", "reporters", f"hx:1:{time.time() - 120:.0f} ")
    for reporter in others:
        await store.count(Batch(0, reporter, next(_seqs), [("S", 1)]), at=time.time())
    record = await fail(store, "wa", 1.0)
    assert (record.live_reporters, record.mute_reporters) == (1 + len(others), mute)
    assert (await succeed(store)).mute_reporters == 0


async def test_each_answers_once_and_only_what_is_asked(store: Store) -> None:
    out = await asked(store)
    for reporter, calls in (("wa", 3), ("wb", 4), ("wa", 3), ("w", 1)):
        await store.answer(out, reporter, calls)
    await store.answer(replace(out, number=out.number - 1), "wd", 50)
    assert question((await store.read()).record).answers == 8


async def test_an_answer_after_the_decision_changes_nothing(store: Store) -> None:
    out = await asked(store)
    await store.change(lambda record, now: settle(record, now + 0.3))
    before = await store.read()
    assert isinstance(before.record and before.record.breaker, Open)
    await store.answer(out, "wa", 50)
    assert (await store.read()).raw == before.raw


async def test_is_decided_once_whoever_looks_first(store: Store) -> None:
    out = await asked(store)
    await store.answer(out, "wa", 50)
    decided = [store.change(lambda record, now: settle(record, now + 0.3)) for _ in range(5)]
    for seen in await asyncio.gather(*decided):
        assert closed(seen.record) == Closed()
    record = (await store.read()).record
    assert record is not None
    assert record.acquittal.began_at == out.began_at
    assert record.version == 2


async def test_what_was_counted_meanwhile_is_not_lost_where_the_run_goes_on(store: Store) -> None:
    out = await asked(store)
    await store.answer(out, "wa", 10)
    before = await store.read()
    await fail(store, "wd", 1.0)
    assert before.record is not None
    after = settle(before.record, before.now + 0.3)
    assert after is not None
    assert await store.commit(before, after)
    found = closed((await store.read()).record)
    assert (found.failures, found.want, found.question, found.evidence.timed) == (6, 8, None, 6)
    assert found.shares == {"wa": 2, "wb": 2, "wc": 1, "wd": 1}


class TestASuccessOfACallThatBeganBefore:
    """Of one that began before the failed calls, of which the first has just ended."""

    async def succeed(self, store: Store, began_at: float, *, are_timed: bool = True) -> Closed:
        now = time.time()
        batch = Batch(
            0, "wz", next(_seqs), [("S", 2)], last_success_at=now, are_timed=are_timed, last_begun_at=began_at
        )
        return closed((await store.count(batch, at=now)).seen.record)

    async def test_does_not_end_the_run_for_a_moment(self, store: Store) -> None:
        await fail(store, "wa", 0.2)
        held = await self.succeed(store, time.time() - 5)
        assert (held.failures, held.earlier) == (1, 2)
        assert closed(await fail(store, "wb", 0.2)).failures == 2

    async def test_ends_it_where_it_began_later_or_nobody_knows(self, store: Store) -> None:
        for began_at, are_timed in ((time.time() - 0.1, True), (time.time() - 5, False), (0.0, True)):
            await fail(store, "wa", 0.2)
            assert await self.succeed(store, began_at, are_timed=are_timed) == Closed()

    async def test_ends_it_a_second_after_the_first_failure(self, store: Store) -> None:
        await fail(store, "wa", 0.2, ended_at=time.time() - 1)
        assert await self.succeed(store, time.time() - 5) == Closed()

    async def test_ends_it_soon_after_an_acquittal(self, store: Store, client: aioredis.Redis) -> None:
        for ago_s, failures in ((4.5, 0), (5.5, 1)):
            at = time.time() - ago_s
            await client.hset(store.keys.state, "acquitted", f"{at:.6f} {at:.6f}")
            await fail(store, "wa", 0.2)
            assert (await self.succeed(store, time.time() - 5)).failures == failures

    async def test_is_forgotten_with_the_run(self, store: Store, client: aioredis.Redis) -> None:
        await fail(store, "wa", 0.2)
        await self.succeed(store, time.time() - 5)
        await succeed(store)
        assert not await client.hget(store.keys.state, "run_earlier")

    async def test_in_one_batch_with_the_failures_counts_too(self, store: Store) -> None:
        now = time.time()
        batch = Batch(
            0, "wz", next(_seqs), [("S", 1), ("F", 2)], first_failure_at=now, last_success_at=now,
            evidence=(2, now - 0.2, 0.4, 0.2), are_timed=True, last_begun_at=now - 5, earlier=1,
        )  # fmt: skip
        found = closed((await store.count(batch, at=now)).seen.record)
        assert (found.failures, found.earlier) == (2, 1)


class TestASuccessMeanwhile:
    async def test_does_not_end_the_run(self, store: Store) -> None:
        out = await asked(store)
        assert question(await succeed(store)) == out

    async def test_ends_it_where_nobody_knows_when_the_call_began(self, store: Store, client: aioredis.Redis) -> None:
        await asked(store)
        assert closed(await succeed(store, are_timed=False)) == Closed()
        left = await client.hmget(store.keys.state, "question", "answers", "run_want", "run_evidence")
        assert left == ["", "", "", ""] or left == ["", None, None, ""]

    async def test_ends_it_where_nobody_decides(self, store: Store, client: aioredis.Redis) -> None:
        await asked(store)
        number, at, rest = str(await client.hget(store.keys.state, "question")).split(" ", 2)
        await client.hset(store.keys.state, "question", f"{number} {float(at) - 2.1:.6f} {rest}")
        assert closed(await succeed(store)) == Closed()


async def test_a_new_run_begins_with_nothing_of_the_last(store: Store) -> None:
    out = await asked(store)
    await store.answer(out, "wa", 10)
    await store.change(lambda record, now: settle(record, now + 0.3))
    assert closed((await store.read()).record).want == 8
    await succeed(store)
    again = closed(await fail(store, "wa", 1.0))
    assert (again.failures, again.want, again.evidence.timed, again.shares) == (1, 0, 1, {"wa": 1})


@pytest.mark.parametrize("text", ["nan", "1 2 3", "9" * 5_000, "1e400 1 1 1 1", "x y z u v"])
async def test_what_cannot_be_read_of_it_is_nothing(store: Store, client: aioredis.Redis, text: str) -> None:
    await asked(store)
    await client.hset(
        store.keys.state, mapping=dict.fromkeys(("question", "answers", "run_evidence", "run_want"), text)
    )
    assert closed(await fail(store, "wa", 1.0)).evidence.timed == 1
    assert closed(await succeed(store)).failures == 0
