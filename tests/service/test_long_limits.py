"""The service checks when a worker reports a long wait."""

from __future__ import annotations

import time
from dataclasses import replace

from openrouter_guard.rules import shared_state, trial_calls
from openrouter_guard.rules.limits import LONG_S, LOOK_S
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.rules.signals import Effect, ErrorType, Signal
from openrouter_guard.settings import Settings, Thresholds
from openrouter_guard.store import Store
from tests.service.apps import FakeUpstream, ask, eventually, failing, running

DAY_S = 86_400.0
SHORT = Thresholds(check_slot_s=0.1)


def claim(record: SharedState | None, now: float) -> SharedState:
    told = Signal(Effect.RATE_LIMIT, ErrorType.RATE_LIMITED, "slow down", 429, DAY_S)
    return trial_calls.limited(record or shared_state.fresh(now), told, now, by="w1")


async def limit_s(store: Store) -> float:
    record = (await store.read()).record
    return record.upstream.rate_limit_reset_at - time.time() if record else 0.0


async def test_a_check_that_meets_a_limit_too_confirms_it(
    settings: Settings, upstream: FakeUpstream, store: Store
) -> None:
    upstream.answer = failing(429)
    async with running(replace(settings, thresholds=SHORT), upstream) as service:
        await ask(service)
        await store.change(claim)
        calls = upstream.calls
        await eventually(lambda: upstream.calls > calls)

        async def is_confirmed() -> bool:
            return await limit_s(store) > DAY_S - 60

        await eventually(is_confirmed)


async def test_a_key_that_works_does_not(settings: Settings, upstream: FakeUpstream, store: Store) -> None:
    async with running(replace(settings, thresholds=SHORT), upstream) as service:
        await ask(service)
        await store.change(claim)
        calls = upstream.calls
        await eventually(lambda: upstream.calls > calls)
        answer = await ask(service)
    assert answer["status"] == "rate_limited"
    assert 0 < await limit_s(store) <= LONG_S


async def test_while_a_long_limit_stands_a_check_is_made_every_few_minutes(
    settings: Settings, upstream: FakeUpstream, store: Store
) -> None:
    def minutes_ago(record: SharedState | None, now: float) -> SharedState:
        agreed = trial_calls.limited(
            claim(record, now - LOOK_S), Signal(Effect.RATE_LIMIT, wait_s=DAY_S), now - LOOK_S, by="w2"
        )
        return replace(agreed, upstream=replace(agreed.upstream, checked_at=now - LOOK_S + 1))

    await store.change(minutes_ago)
    async with running(replace(settings, thresholds=SHORT), upstream) as service:
        await eventually(lambda: upstream.calls)
        assert upstream.calls == 1
        answer = await ask(service)
        assert answer["rate_limit_reset"] is not None
    assert await limit_s(store) > DAY_S - LOOK_S - 60
