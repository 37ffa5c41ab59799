"""The script that grants permits agrees with the rule, or defers to it."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import redis.asyncio as aioredis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openrouter_guard.rules import shared_state, transitions, trial_calls
from openrouter_guard.rules.breaker import Breaker, Closed, HalfOpen, Open, Policy
from openrouter_guard.rules.codec import encode
from openrouter_guard.rules.override import Override, OverrideKind
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.store import Seen, Store

OWNERS = ["worker-a/w1-1", 'quo"ted/\\w2-1', "worker-c/w3-7", "worker-d/w4-1"]
FOREIGN = "wörker/w5-1"


def _half_open(lease_s: dict[str, float] | None = None) -> HalfOpen:
    now = time.time()
    permits = {owner: now + seconds for owner, seconds in (lease_s or {}).items()}
    return HalfOpen("timeout", now - 60, failures=5, permits=permits)


def _open(ends_in_s: float) -> Open:
    return Open("timeout", time.time() - 60, time.time() + ends_in_s, failures=5)


# Not about now: the script runs a moment later.
seconds = st.one_of(st.floats(-20, -0.5), st.floats(0.5, 15))
owners = st.sampled_from([*OWNERS * 3, FOREIGN])
half_open = st.dictionaries(owners, seconds, max_size=4).map(_half_open)
is_open = seconds.map(_open)
breakers = st.one_of(*[half_open] * 8, is_open, st.just(Closed()))
overrides = st.sampled_from([*[None] * 12, *OverrideKind])


def _record(breaker: Breaker, override: OverrideKind | None, limited_s: float, since: float = 60.0) -> SharedState:
    now = time.time()
    record = transitions.now_open(shared_state.fresh(now - 90), "timeout", "ann", now - since, Policy())
    upstream = replace(record.upstream, rate_limit_reset_at=now + limited_s if limited_s else 0.0)
    kept = Override(override, "ann", "a test", now + 60) if override else None
    return replace(record, breaker=breaker, upstream=upstream, override=kept)


@pytest.fixture
async def client(redis_url: str) -> aioredis.Redis:
    return aioredis.Redis.from_url(redis_url, decode_responses=True)


@pytest.mark.slow
@given(
    breaker=breakers,
    override=overrides,
    limited_s=st.sampled_from([*[0.0] * 10, -30.0, 30.0]),
    owner=owners,
    permits=st.integers(1, 4),
    renews=st.booleans(),
    since=st.sampled_from([60.0, 19.0, 11.0, 9.0, 5.0, 0.5]),
    next_s=st.sampled_from([10.0, 10.0, 4.0, 0.0]),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_it_decides_as_the_rule_does(
    store: Store,
    client: aioredis.Redis,
    breaker: Breaker,
    override: OverrideKind | None,
    limited_s: float,
    owner: str,
    permits: int,
    renews: bool,
    since: float,
    next_s: float,
) -> None:
    record, policy = _record(breaker, override, limited_s, since), Policy(permits=permits, next_trial_s=next_s)
    await client.flushall()
    await client.hset(store.keys.state, mapping={name: text for name, text in encode(record).items() if text})
    before = await store.read()
    got, after = await store.permit(owner, before, policy, renews=renews)
    wanted = _by_rule(before, owner, policy, after.now, renews=renews)
    if got is None:
        assert _is_rare(breaker, override, limited_s, owner)
        assert after.raw == before.raw
    else:
        assert got == (wanted is not None)
        _is_same(after, wanted or before.record)
    await client.aclose()


def _by_rule(before: Seen, owner: str, policy: Policy, now: float, *, renews: bool) -> SharedState | None:
    assert before.record is not None
    if renews and owner not in before.record.breaker.permits:
        return None
    return trial_calls.with_permit(before.record, owner, now=now, policy=policy)


def _is_rare(breaker: Breaker, override: OverrideKind | None, limited_s: float, owner: str) -> bool:
    names = [owner, *breaker.permits]
    is_plain = isinstance(breaker, HalfOpen) and all(name.isascii() for name in names)
    return not is_plain or override is not None or bool(limited_s)


def _is_same(after: Seen, wanted: SharedState | None) -> None:
    assert after.record is not None
    assert wanted is not None
    breaker, expected = after.record.breaker, wanted.breaker
    assert isinstance(breaker, HalfOpen)
    assert isinstance(expected, HalfOpen)
    assert dict(breaker.permits) == pytest.approx(dict(expected.permits), abs=1e-4)
    assert breaker.tried_at == pytest.approx(expected.tried_at, abs=1e-4)
    same = replace(expected, permits=breaker.permits, tried_at=breaker.tried_at)
    assert replace(after.record, version=0) == replace(wanted, breaker=same, version=0)


async def test_of_a_state_of_another_epoch_it_says_nothing(store: Store, client: aioredis.Redis) -> None:
    record = _record(_half_open(), None, 0.0)
    await client.hset(store.keys.state, mapping={name: text for name, text in encode(record).items() if text})
    seen = await store.read()
    older = replace(seen, record=replace(record, epoch=record.epoch - 1))
    got, after = await store.permit(OWNERS[0], older, Policy())
    assert got is None
    assert after.raw == seen.raw
    await client.aclose()
