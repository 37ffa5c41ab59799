"""The worker's background, where reads and commits could cross."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

import pytest
import redis
import redis.asyncio as aioredis

from openrouter_guard import Guard, Settings
from openrouter_guard.address import parse_address
from openrouter_guard.clocks import MonotonicTime
from openrouter_guard.rules import evaluation, trial_calls
from openrouter_guard.rules.breaker import BreakerState, Open, Policy
from openrouter_guard.rules.codec import iso, parse_iso
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.rules.signals import SUCCESS, Effect, ErrorType, Signal
from openrouter_guard.store import Batch, Seen, Store
from openrouter_guard.worker.reporting.agent import Agent
from openrouter_guard.worker.reporting.outbox import _taken
from openrouter_guard.worker.view import Admission, Ended
from tests.existing import STATE
from tests.waiting import until

pytestmark = pytest.mark.slow

POLICY = Policy(reset_timeout_s=0.05, jitter=0)
_seqs = itertools.count(1)


class SlowFirstRead(Store):
    """A store whose first answer is a long time on its way."""

    def __init__(self, redis_url: str) -> None:
        super().__init__(parse_address(redis_url))
        self.is_read = asyncio.Event()
        self.arrives = asyncio.Event()

    async def read(self) -> Seen:
        seen = await super().read()
        if not self.is_read.is_set():
            self.is_read.set()
            await self.arrives.wait()
        return seen


@pytest.fixture
async def slow(redis_url: str) -> AsyncIterator[SlowFirstRead]:
    slow = SlowFirstRead(redis_url)
    yield slow
    await slow.close()


async def half_open(store: Store) -> None:
    await store.count(Batch(0, "wa", next(_seqs), [("F", 5)]), at=time.time())
    await store.change(
        lambda record, now: record and evaluation.evaluate(record, now=now, policy=POLICY, by="somebody")
    )
    await asyncio.sleep(POLICY.reset_timeout_s)


async def read(store: Store) -> SharedState:
    record = (await store.read()).record
    assert record is not None
    return record


async def test_an_answer_that_is_late_replaces_nothing_newer(slow: SlowFirstRead, store: Store) -> None:
    await half_open(store)
    before = await read(store)
    agent = Agent(slow, POLICY, "worker")
    looking = asyncio.create_task(agent.refresh())
    await slow.is_read.wait()
    asking = asyncio.create_task(agent.acquire("me"))
    await asyncio.sleep(0.05)
    slow.arrives.set()
    await looking
    assert await asking
    now = await read(store)
    assert now.epoch == before.epoch + 1
    assert agent.view.record.epoch == now.epoch
    agent.release("me", SUCCESS)
    await agent.finish()
    assert (await read(store)).phase(time.time()) is BreakerState.CLOSED


async def test_a_permit_that_was_lost_is_not_taken_again(store: Store) -> None:
    await half_open(store)
    agent = Agent(store, replace(POLICY, permit_lease_s=0.15), "worker")
    assert await agent.acquire("me")
    await store.change(lambda record, _now: record and trial_calls.without_permit(record, "me"))
    # It is renewed three times in a lease.
    await asyncio.sleep(0.15)
    assert (await read(store)).breaker.permits == {}
    agent.release("me", SUCCESS)
    await agent.finish()
    assert (await read(store)).phase(time.time()) is BreakerState.HALF_OPEN


async def test_of_many_who_know_what_was_lost_one_restores_it(
    redis_url: str, store: Store, client: aioredis.Redis
) -> None:
    await half_open(store)
    stores = [Store.from_url(redis_url) for _ in range(5)]
    agents = [Agent(each, POLICY, f"worker-{number}") for number, each in enumerate(stores)]
    for agent in agents:
        await agent.refresh()
    lost = await read(store)
    await client.flushall()
    await asyncio.gather(*(agent.refresh() for agent in agents))
    restored = await read(store)
    # Nobody makes a trial call until all who were making one have told of it.
    assert isinstance(restored.breaker, Open)
    assert isinstance(lost.breaker, Open)
    assert restored.breaker == replace(lost.breaker, until=restored.breaker.until)
    assert 0 < restored.breaker.until - (await store.read()).now <= 3
    assert restored.epoch > lost.epoch
    await asyncio.gather(*(agent.refresh() for agent in agents))
    assert {agent.view.record.epoch for agent in agents} == {restored.epoch}
    assert await client.hget(store.keys.state, "version") == "1"
    for each in stores:
        await each.close()


@pytest.fixture
async def knowing(store: Store, client: aioredis.Redis) -> Agent:
    """A worker with a trial call under way; then Redis lost all."""
    await half_open(store)
    agent = Agent(store, POLICY, "worker")
    assert await agent.acquire("me")
    await client.flushall()
    return agent


async def test_a_trial_call_decides_though_redis_lost_what_it_is_about(knowing: Agent, store: Store) -> None:
    known = knowing.view.record.epoch
    knowing.release("me", SUCCESS)
    await knowing.finish()
    now = await read(store)
    assert now.phase(time.time()) is BreakerState.CLOSED
    assert now.transitions[-1].reason == "trial_succeeded"
    assert now.epoch > known


async def test_a_rate_limit_takes_nothing_from_what_redis_lost(knowing: Agent, store: Store) -> None:
    knowing.limit(Signal(Effect.RATE_LIMIT, ErrorType.RATE_LIMITED, wait_s=60))
    await knowing.finish()
    now = await read(store)
    assert now.phase(time.time()) is BreakerState.HALF_OPEN
    assert now.upstream.rate_limit_reset_at > time.time() + 50


async def test_a_newcomer_who_reports_before_anybody_who_knows_changes_nothing(
    redis_url: str, store: Store, client: aioredis.Redis
) -> None:
    await half_open(store)
    agent = Agent(store, POLICY, "worker")
    await agent.refresh()
    lost = await read(store)
    await client.flushall()
    newcomer = Store.from_url(redis_url)
    await newcomer.count(Batch(0, "wb", next(_seqs), [("S", 9)]), at=time.time())
    assert (await read(newcomer)).phase(time.time()) is BreakerState.CLOSED
    await newcomer.close()
    await agent.refresh()
    assert (await read(store)).breaker == lost.breaker
    assert agent.view.record.breaker == lost.breaker


def test_a_worker_puts_down_the_time_in_a_state_that_nothing_happens_to(redis_url: str) -> None:
    """Else the time would be lost with the state once everybody has left."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client, Guard(Settings(redis_url)) as guard:
        client.hset(STATE, mapping={"epoch": "1", "timed_until": iso(time.time() - 300)})
        assert guard.state.phase is BreakerState.CLOSED
        until(lambda: parse_iso(str(client.hget(STATE, "timed_until"))) > time.time() - 60)


def test_what_another_agent_has_taken_meanwhile_ends_nothing() -> None:
    class Shared(deque[Ended]):
        def __len__(self) -> int:
            return super().__len__() + 1

    note: Ended = (SUCCESS, Admission(1, ""), MonotonicTime(0.0), MonotonicTime(1.0), None)
    assert list(_taken(Shared([note, note]))) == [note, note]


def test_a_mistake_of_our_own_ends_no_report(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gather, mistakes = Agent._gather, iter([LookupError("mistaken")])

    def mistaken(agent: Agent) -> None:
        for mistake in mistakes:
            raise mistake
        gather(agent)

    monkeypatch.setattr(Agent, "_gather", mistaken)
    with Guard(Settings(redis_url)) as guard, Guard(Settings(redis_url)) as other:
        assert guard.state.phase is BreakerState.CLOSED
        until(lambda: "mistaken" in caplog.text)
        for _ in range(5):
            with suppress(TimeoutError), guard.call():
                raise TimeoutError
        until(lambda: other.state.phase is BreakerState.OPEN)
