"""The service's checks close a breaker that no worker tries, so that a paused fleet does not stay paused for ever."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openrouter_guard.rules.breaker import BreakerState, Closed, HalfOpen, Open, Policy
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.settings import Settings, Thresholds
from openrouter_guard.store import Store
from tests.service.apps import FakeUpstream, eventually, fail, failing, healthy, open_breaker, running

pytestmark = pytest.mark.slow


@pytest.fixture
def quick(settings: Settings) -> Settings:
    policy = Policy(reset_timeout_s=0.1, trial_wait_s=0.1)
    return replace(settings, policy=policy, thresholds=Thresholds(check_slot_s=0.05))


async def breaker_is(store: Store, phase: BreakerState) -> SharedState | None:
    seen = await store.read()
    return seen.record if seen.record and seen.record.phase(seen.now) is phase else None


async def test_good_checks_close_it_on_probation(quick: Settings, upstream: FakeUpstream, store: Store) -> None:
    await open_breaker(store, quick)
    async with running(quick, upstream):
        record = await eventually(lambda: breaker_is(store, BreakerState.CLOSED))
    assert isinstance(record.breaker, Closed)
    assert record.breaker.on_probation
    assert (await store.history(1))[0]["reason"] == "checks_succeeded"


async def test_the_first_failure_of_a_worker_opens_it_again(
    quick: Settings, upstream: FakeUpstream, store: Store
) -> None:
    await open_breaker(store, quick)
    async with running(quick, upstream):
        await eventually(lambda: breaker_is(store, BreakerState.CLOSED))
        await fail(store, 1)
        await eventually(lambda: breaker_is(store, BreakerState.OPEN))


async def test_while_checks_fail_it_stays_as_it_is(quick: Settings, upstream: FakeUpstream, store: Store) -> None:
    upstream.answer = failing(503)
    await open_breaker(store, quick)
    async with running(quick, upstream):
        await eventually(lambda: upstream.calls > 3)
        assert await breaker_is(store, BreakerState.HALF_OPEN)


async def open_for_long(store: Store, settings: Settings) -> SharedState:
    """An open breaker with a minute to go."""
    await open_breaker(store, settings)

    def decide(record: SharedState | None, now: float) -> SharedState:
        assert record is not None
        assert isinstance(record.breaker, Open)
        return replace(record, breaker=replace(record.breaker, until=round(now + 60, 6)))

    record = (await store.change(decide)).record
    assert record is not None
    return record


async def test_while_open_a_check_is_made_and_if_it_fails_changes_nothing(
    settings: Settings, upstream: FakeUpstream, store: Store
) -> None:
    upstream.answer = failing(503)
    opened = await open_for_long(store, settings)
    async with running(settings, upstream):
        record = await eventually(lambda: found(store))
    assert (record.breaker, record.epoch, upstream.calls) == (opened.breaker, opened.epoch, 1)


async def test_one_that_succeeds_where_none_failed_says_nothing(
    settings: Settings, upstream: FakeUpstream, store: Store
) -> None:
    opened = await open_for_long(store, settings)
    async with running(settings, upstream):
        record = await eventually(lambda: found(store))
    assert (record.breaker, upstream.calls) == (opened.breaker, 1)


async def test_one_that_succeeds_after_one_that_failed_lets_calls_try_at_once(
    settings: Settings, upstream: FakeUpstream, store: Store
) -> None:
    often = replace(settings, policy=replace(settings.policy, recheck_s=0.05))
    upstream.answer = failing(503)
    opened = await open_for_long(store, often)
    async with running(often, upstream):
        await eventually(lambda: found(store))
        upstream.answer = healthy()
        record = await eventually(lambda: breaker_is(store, BreakerState.HALF_OPEN))
    assert isinstance(record.breaker, HalfOpen)
    assert isinstance(opened.breaker, Open)
    assert record.breaker.until == opened.breaker.until
    assert (await store.history(1))[0]["reason"] == "check_succeeded"


async def found(store: Store) -> SharedState | None:
    record = (await store.read()).record
    return record if record and record.check_found else None
