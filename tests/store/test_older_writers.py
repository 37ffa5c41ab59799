"""Writers of the existing format on our state, in every state of the breaker.

They read what we write, all of it, by the types they know; we read what they write over it, and decide.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial

import pytest
import redis.asyncio as aioredis

from openrouter_guard.rules import admission, evaluation
from openrouter_guard.rules.breaker import Breaker, BreakerState, Closed, HalfOpen, Open, Policy
from openrouter_guard.rules.override import Override, OverrideKind
from openrouter_guard.rules.shared_state import SharedState, Upstream
from openrouter_guard.rules.signals import ErrorType, OpenRouterState
from openrouter_guard.store import Store
from tests.existing import STATE, Checked, ExistingApi, ExistingWorker
from tests.store.batches import report

POLICY = Policy(jitter=0)
FOR_LONG_S = 900.0


@cache
def now() -> float:
    """When the test began."""
    return round(time.time(), 3)


@pytest.fixture(autouse=True)
def _begun() -> None:
    now.cache_clear()


def record(breaker: Breaker, override: OverrideKind | None = None, rate_limit_reset_at: float = 0.0) -> SharedState:
    upstream = Upstream(
        OpenRouterState.SERVICE_UNAVAILABLE,
        "Worker reported: service_unavailable",
        balance=12.5,
        usage_today=1.25,
        usage_month=30.0,
        last_check_at=now() - 50,
        last_api_call_at=now() - 40,
        last_success_at=now() - 100,
        rate_limit_reset_at=rate_limit_reset_at,
        error_details=json.dumps({"error_type": "service_unavailable"}),
    )
    decision = Override(override, "ann", "a test", now() + FOR_LONG_S) if override else None
    return SharedState(breaker, epoch=int(now() * 1000), upstream=upstream, override=decision)


def opened() -> Open:
    return Open("service_unavailable", now() - 60, now() + FOR_LONG_S, failures=5)


def half_open() -> HalfOpen:
    return HalfOpen("service_unavailable", now() - 200, failures=5, permits={"wa/1": now() + FOR_LONG_S})


@dataclass(frozen=True, slots=True)
class Case:
    """A state of ours, whether it tells them to skip their calls, and what ours is after each of their reports."""

    before: Callable[[], SharedState]
    skip: bool
    after_success: BreakerState
    after_failure: BreakerState


def of(kind: OverrideKind, breaker: Callable[[], Breaker]) -> SharedState:
    return record(breaker(), kind)


CASES = [
    pytest.param(Case(lambda: record(Closed()), False, BreakerState.CLOSED, BreakerState.CLOSED), id="closed"),
    pytest.param(
        Case(lambda: record(Closed(3)), False, BreakerState.CLOSED, BreakerState.CLOSED), id="closed with failures"
    ),
    pytest.param(
        Case(lambda: record(Closed(4)), False, BreakerState.CLOSED, BreakerState.OPEN),
        id="closed before the last failure",
    ),
    pytest.param(
        Case(
            lambda: record(Closed(0, trips=1, since=now() - 30, on_probation=True)),
            False,
            BreakerState.CLOSED,
            BreakerState.OPEN,
        ),
        id="on probation",
    ),
    pytest.param(
        Case(
            lambda: record(Closed(), rate_limit_reset_at=now() + FOR_LONG_S),
            False,
            BreakerState.CLOSED,
            BreakerState.CLOSED,
        ),
        id="rate limited",
    ),
    pytest.param(Case(lambda: record(opened()), True, BreakerState.OPEN, BreakerState.OPEN), id="open"),
    pytest.param(
        Case(lambda: record(replace(opened(), until=now() - 1)), True, BreakerState.CLOSED, BreakerState.HALF_OPEN),
        id="open and its time over",
    ),
    pytest.param(
        Case(lambda: record(half_open()), True, BreakerState.CLOSED, BreakerState.HALF_OPEN), id="half-open"
    ),
    *(
        pytest.param(Case(partial(of, kind, breaker), is_open, shown, shown), id=f"{kind} over {name}")
        for kind, is_open, shown in (
            (OverrideKind.FORCED_OPEN, True, BreakerState.OPEN),
            (OverrideKind.FORCED_CLOSED, False, BreakerState.CLOSED),
            (OverrideKind.DISABLED, False, BreakerState.CLOSED),
        )
        for name, breaker in (("closed", lambda: Closed(4)), ("open", opened), ("half-open", half_open))
    ),
]


@pytest.fixture
def existing(redis_url: str) -> Iterator[ExistingWorker]:
    with ExistingWorker(redis_url) as worker:
        yield worker


async def written(store: Store, before: SharedState) -> None:
    await store.change(lambda _record, _now: before)


async def evaluate(store: Store) -> SharedState:
    """Ours, after one of us has looked."""
    seen = await store.change(
        lambda found, now: found and evaluation.evaluate(found, now=now, policy=POLICY, by="wa")
    )
    assert seen.record is not None
    return seen.record


async def wait_s(store: Store) -> float:
    """How long calls must wait."""
    return (admission.fleet_refusal(await evaluate(store), time.time()) or (0.0, ""))[0]


@pytest.mark.parametrize("case", CASES)
async def test_they_read_every_field_of_ours_by_the_types_they_know(
    store: Store, existing: ExistingWorker, case: Case
) -> None:
    await written(store, case.before())
    fields = existing.read()
    assert OpenRouterState(fields["state"]) is case.before().upstream.state
    assert [float(fields[name]) for name in ("balance", "usage_today", "usage_month")] == [12.5, 1.25, 30.0]
    for name in ("last_check", "last_api_call", "last_success"):
        assert datetime.fromisoformat(fields[name]).utcoffset() is not None
    assert json.loads(fields["error_details"]) == {"error_type": "service_unavailable"}
    assert int(fields["consecutive_failures"]) == case.before().breaker.failures
    assert fields["circuit_breaker_open"] in {"true", "false"}
    assert existing.should_skip_api_call() is case.skip
    reset_s = case.before().upstream.rate_limit_reset_at
    assert (datetime.fromisoformat(fields["rate_limit_reset"]).timestamp() if reset_s else 0.0) == reset_s


@pytest.mark.parametrize("state", OpenRouterState)
async def test_they_read_every_state_of_the_upstream(
    store: Store, existing: ExistingWorker, state: OpenRouterState
) -> None:
    await written(store, SharedState(epoch=1, upstream=Upstream(state, "Said by a check")))
    assert (existing.read()["state"], existing.read()["message"]) == (state.value, "Said by a check")


@pytest.mark.parametrize("error_type", [kind for kind in ErrorType if kind is not ErrorType.UNKNOWN_ERROR])
async def test_we_read_every_error_of_theirs(store: Store, existing: ExistingWorker, error_type: ErrorType) -> None:
    for _ in range(5):
        assert existing.report_api_error(error_type.value)
    after = await evaluate(store)
    assert (after.upstream.state, after.breaker.reason) == (error_type.state, error_type.value)


@pytest.mark.parametrize("case", CASES)
async def test_their_success_means_to_us_what_it_should(store: Store, existing: ExistingWorker, case: Case) -> None:
    await written(store, case.before())
    assert existing.report_api_success()
    await holds(store, existing, case, case.after_success)


@pytest.mark.parametrize("case", CASES)
async def test_their_failure_means_to_us_what_it_should(store: Store, existing: ExistingWorker, case: Case) -> None:
    await written(store, case.before())
    assert existing.report_api_error()
    await holds(store, existing, case, case.after_failure)


async def holds(store: Store, existing: ExistingWorker, case: Case, phase: BreakerState) -> None:
    """One of us looks, and all see the same; what theirs know nothing of is as it was."""
    after = await evaluate(store)
    assert after.phase(time.time()) is phase
    assert existing.should_skip_api_call() is (phase is not BreakerState.CLOSED)
    assert (after.override, after.upstream.balance) == (case.before().override, 12.5)
    assert after.upstream.rate_limit_reset_at == case.before().upstream.rate_limit_reset_at
    if phase is BreakerState.OPEN and isinstance(case.before().breaker, Open) and case.before().override is None:
        assert after.breaker == replace(case.before().breaker, failures=after.breaker.failures)
    if phase is BreakerState.CLOSED and case.before().override is None:
        assert after.breaker.failures in {0, case.before().breaker.failures + 1}


class TestWhileOursIsNotClosed:
    """A job of theirs checks once and then makes many calls: what it reports may come minutes later."""

    @pytest.mark.parametrize("error_type", ErrorType)
    async def test_their_late_failure_closes_nothing(
        self, store: Store, existing: ExistingWorker, client: aioredis.Redis, error_type: ErrorType
    ) -> None:
        await written(store, record(half_open()))
        await client.hset(STATE, "consecutive_failures", "0")
        assert existing.report_api_error(error_type.value)
        assert existing.read()["circuit_breaker_open"] == "false"
        after = await evaluate(store)
        assert after.breaker == half_open()
        assert existing.should_skip_api_call()
        assert existing.read()["consecutive_failures"] == "5"

    async def test_what_they_say_is_well_and_what_stays_open_are_one_story(
        self, store: Store, existing: ExistingWorker
    ) -> None:
        await written(store, record(opened()))
        assert existing.report_api_success()
        after = await evaluate(store)
        said = (after.upstream.state, after.upstream.message, after.breaker.failures)
        assert said == ("service_unavailable", "Worker reported: service_unavailable", 5)
        theirs = existing.manager.get_state()
        assert theirs is not None
        assert (theirs.state, theirs.message, theirs.consecutive_failures) == said
        assert theirs.circuit_breaker_open

    async def test_a_success_from_before_the_wait_was_over_does_not_close_it_after(
        self, store: Store, existing: ExistingWorker, client: aioredis.Redis
    ) -> None:
        await written(store, record(opened()))
        assert existing.report_api_success()
        await evaluate(store)
        await store.change(lambda found, _now: found and replace(found, breaker=half_open()))
        assert existing.report_api_error("timeout")
        await client.hset(STATE, mapping={"state": "active", "circuit_breaker_open": "false"})
        assert (await evaluate(store)).breaker == half_open()

    @pytest.mark.parametrize("usage", [0.0, 12.5])
    async def test_a_check_of_theirs_closes_nothing_that_was_empty(
        self, store: Store, existing: ExistingWorker, usage: float
    ) -> None:
        empty = replace(half_open(), reason="credits_exhausted", permits={})
        await written(store, record(empty))
        theirs = ExistingApi(existing.manager, lambda: Checked(usage=usage))
        for _ in range(3):
            assert theirs.status(force_refresh=True)["status"] == "active"
            after = await evaluate(store)
            assert (after.breaker, after.upstream.state) == (empty, "credits_exhausted")
            assert existing.should_skip_api_call()

    async def test_nor_if_it_also_says_that_a_call_succeeded(
        self, store: Store, existing: ExistingWorker, client: aioredis.Redis
    ) -> None:
        empty = replace(half_open(), reason="credits_exhausted", permits={})
        await written(store, record(empty))
        ExistingApi(existing.manager, lambda: Checked(usage=7.0)).status(force_refresh=True)
        at = existing.read()["last_check"]
        await client.hset(STATE, mapping={"last_success": at, "last_api_call": at})
        assert (await evaluate(store)).breaker == empty

    async def test_two_checks_of_theirs_bring_a_fleet_back_that_nobody_else_would(
        self, store: Store, existing: ExistingWorker
    ) -> None:
        waited = replace(half_open(), permits={}, tried_at=now() - 100)
        await written(store, record(waited))
        theirs = ExistingApi(existing.manager, lambda: Checked(usage=7.0))
        theirs.status(force_refresh=True)
        assert (await evaluate(store)).breaker == waited
        theirs.status(force_refresh=True)
        after = await evaluate(store)
        assert (after.phase(time.time()), after.breaker.on_probation) == (
            BreakerState.CLOSED,
            True,
        )
        assert not existing.should_skip_api_call()

    async def test_a_call_of_theirs_that_succeeded_closes_it(self, store: Store, existing: ExistingWorker) -> None:
        await written(store, record(replace(half_open(), reason="credits_exhausted")))
        assert existing.report_api_success()
        assert (await evaluate(store)).phase(time.time()) is BreakerState.CLOSED


class TestRateLimits:
    async def test_a_guess_of_theirs_holds_for_ten_seconds_and_ends_with_their_next_success(
        self, store: Store, existing: ExistingWorker
    ) -> None:
        await written(store, record(Closed()))
        assert existing.report_api_error("rate_limited")
        assert 5 < await wait_s(store) <= 10
        assert existing.manager.should_skip_api_call() == (True, "Rate limited")
        assert existing.report_api_success()
        assert await wait_s(store) == 0

    async def test_one_that_their_manager_names_holds_while_the_state_says_so(
        self, store: Store, existing: ExistingWorker
    ) -> None:
        reset = datetime.fromtimestamp(now() + 600, UTC)
        assert existing.manager.update_state("rate_limited", "HTTP 429", rate_limit_reset=reset)
        assert await wait_s(store) > 500
        assert existing.report_api_success()
        assert await wait_s(store) == 0

    async def test_ours_is_kept_where_they_cannot_overwrite_it(self, store: Store, existing: ExistingWorker) -> None:
        await written(store, record(Closed(), rate_limit_reset_at=now() + 600))
        assert existing.report_api_error("rate_limited")
        assert existing.report_api_success()
        assert await wait_s(store) > 500

    async def test_one_a_year_ahead_is_none(self, store: Store, client: aioredis.Redis) -> None:
        ahead = datetime.fromtimestamp(now() + 365 * 86_400, UTC).isoformat()
        await client.hset(STATE, mapping={"state": "rate_limited", "rate_limit_reset": ahead})
        assert await wait_s(store) == 0


async def test_their_errors_are_read_though_they_are_python(store: Store, existing: ExistingWorker) -> None:
    existing.reporter.report_api_error('it\'s "down"', 503)
    (row,) = await store.worker_errors(now=time.time())
    assert (row["error_type"], row["error_message"], row["status_code"]) == (
        "service_unavailable",
        'it\'s "down"',
        503,
    )


class TestAFleetOfOursThatIsTakenAway:
    async def test_does_not_keep_theirs_waiting_for_ever(
        self, store: Store, existing: ExistingWorker, client: aioredis.Redis
    ) -> None:
        await written(store, record(opened()))
        assert existing.should_skip_api_call()
        assert 3600 < await client.ttl(STATE) <= FOR_LONG_S + 3600

    async def test_keeps_them_waiting_while_any_of_it_is_there(
        self, store: Store, existing: ExistingWorker, client: aioredis.Redis
    ) -> None:
        before = record(opened())
        await written(store, replace(before, timed_until=now() - 31))
        await client.expire(STATE, 60)
        await client.hset(STATE, "last_check", datetime.fromtimestamp(now() - 301, UTC).isoformat())
        assert not existing.should_skip_api_call()
        await store.keep_time()
        assert existing.should_skip_api_call()
        assert await client.ttl(STATE) > FOR_LONG_S


class TestTheFirstSignOfThem:
    async def test_is_remembered_through_a_quiet_weekend(
        self, store: Store, existing: ExistingWorker, client: aioredis.Redis
    ) -> None:
        await written(store, record(Closed()))
        assert existing.report_api_success()
        await report(store)
        assert float(await client.hget(STATE, "older_writer") or 0) == pytest.approx(time.time(), abs=5)
        await client.hset(STATE, "older_writer", str(int(now() - 3 * 86_400)))
        await report(store)
        seen = await store.read()
        assert seen.record is not None
        assert seen.record.older_writer_at == int(now() - 3 * 86_400)

    async def test_is_seen_by_whoever_reads(self, store: Store, existing: ExistingWorker) -> None:
        await written(store, record(Closed()))
        seen = await store.read()
        assert seen.record is not None
        assert seen.record.older_writer_at == 0
        assert existing.report_api_error()
        seen = await store.read()
        assert seen.record is not None
        assert seen.record.older_writer_at == seen.now

    async def test_what_ours_write_is_none(self, store: Store) -> None:
        await report(store)
        await written(store, record(opened()))
        await store.keep_time()
        seen = await store.read()
        assert seen.record is not None
        assert seen.record.older_writer_at == 0


class TestADecisionOfOursThatKnowsNothingOfThem:
    """It may be made between their write and our next look."""

    async def test_does_not_take_back_their_opening(self, store: Store, existing: ExistingWorker) -> None:
        await written(store, replace(record(Closed()), timed_until=now() - 100))
        for _ in range(5):
            assert existing.report_api_error()
        await store.change(lambda found, now: found and replace(found, check_slot_at=now + 60))
        await store.keep_time()
        assert existing.should_skip_api_call()
        assert (await evaluate(store)).phase(time.time()) is BreakerState.OPEN

    async def test_nor_their_success(self, store: Store, existing: ExistingWorker) -> None:
        await written(store, replace(record(half_open()), timed_until=now() - 100))
        assert existing.report_api_success()
        await store.keep_time()
        assert (await evaluate(store)).phase(time.time()) is BreakerState.CLOSED
