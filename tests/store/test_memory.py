"""The in-memory state of the rules' tests behaves as the scripts do on a real Valkey."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import TypeAlias

import pytest
import redis.asyncio as aioredis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openrouter_guard.rules import evaluation
from openrouter_guard.rules.breaker import Policy
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.store import Batch, Store
from tests.rules.memory import Memory

Step: TypeAlias = tuple[str, int, int, list[tuple[str, int]]]
POLICY = Policy(reset_timeout_s=60, jitter=0)


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[aioredis.Redis]:
    """Redis without our eyes."""
    async with aioredis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


batches = st.tuples(
    st.sampled_from(["wa", "wb", "wc", "wd"]),
    st.integers(1, 6),
    st.sampled_from([0, 1, 7]),
    st.lists(st.tuples(st.sampled_from("SFC"), st.integers(1, 3)), min_size=1, max_size=3),
)


def about(record: SharedState | None) -> dict[str, object]:
    assert record is not None
    breaker = record.breaker
    return {
        "state": type(breaker),
        "failures": breaker.failures,
        # The script keeps three names, which is all that is asked for.
        "reporters": min(len(breaker.run), 3),
        "shares": getattr(breaker, "shares", {}),
        "refusals": getattr(breaker, "refusals", 0),
        "live": record.live_reporters,
        "is of the first epoch": record.epoch == 1,
    }


def evaluate(record: SharedState | None, now: float) -> SharedState | None:
    return record and evaluation.evaluate(record, now=now, policy=POLICY, by="me")


@pytest.mark.slow
@given(story=st.lists(batches, max_size=12), settles=st.booleans())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_counts_and_commits_as_the_scripts_do(
    store: Store, client: aioredis.Redis, story: list[Step], settles: bool
) -> None:
    await client.flushall()
    memory = Memory(time.time())
    memory.fields = {"epoch": "1", "breaker": "closed"}
    await client.hset(store.keys.state, mapping={"epoch": "1", "breaker": "closed"})
    for reporter, seq, epoch, runs in story:
        counted = await store.count(Batch(epoch, reporter, seq, runs), at=memory.now)
        assert memory.count(reporter, seq, epoch, runs) == counted.verdict
        assert about(memory.read().record) == about(counted.seen.record)
        if settles:
            await store.change(evaluate)
            seen = memory.read()
            after = evaluate(seen.record, seen.now)
            assert after is not None
            assert memory.commit(seen, after)
            assert about(memory.read().record) == about((await store.read()).record)
