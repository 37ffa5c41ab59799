"""Systems of the existing format on one state with ours, in every state that the breaker can be in.

They read what we write, all of it, by the types they know; we read what they write over it, and decide.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

import pytest

from openrouter_guard.rules import record as records
from openrouter_guard.rules.breaker import Breaker, Closed, HalfOpen, Open, Phase, Policy
from openrouter_guard.rules.override import Override, OverrideKind
from openrouter_guard.rules.record import Record, Upstream
from openrouter_guard.rules.signals import ErrorType, OpenRouterState
from openrouter_guard.store import Store
from tests.existing import ExistingWorker

NOW_S = round(time.time(), 3)
POLICY = Policy(jitter=0)
FOR_LONG_S = 900.0
SEEN = Upstream(
    OpenRouterState.SERVICE_UNAVAILABLE,
    "Worker reported: service_unavailable",
    balance=12.5,
    usage_today=1.25,
    usage_month=30.0,
    last_check_s=NOW_S - 50,
    last_api_call_s=NOW_S - 40,
    last_success_s=NOW_S - 100,
    error_details=json.dumps({"error_type": "service_unavailable"}),
)


def record(breaker: Breaker, override: OverrideKind | None = None, rate_limit_reset_s: float = 0.0) -> Record:
    upstream = replace(SEEN, rate_limit_reset_s=rate_limit_reset_s)
    decision = Override(override, "ann", "a test", NOW_S + FOR_LONG_S) if override else None
    return Record(breaker, epoch=int(NOW_S * 1000), upstream=upstream, override=decision)


OPEN = Open("service_unavailable", NOW_S - 60, NOW_S + FOR_LONG_S, failures=5)
HALF_OPEN = HalfOpen("service_unavailable", NOW_S - 200, failures=5, permits={"wa/1": NOW_S + FOR_LONG_S})


@dataclass(frozen=True, slots=True)
class Case:
    """A state of ours, whether it tells them to skip their calls, and what ours is after each of their reports."""

    before: Record
    skip: bool
    after_success: Phase
    after_failure: Phase


CASES = [
    pytest.param(Case(record(Closed()), False, Phase.CLOSED, Phase.CLOSED), id="closed"),
    pytest.param(Case(record(Closed(3)), False, Phase.CLOSED, Phase.CLOSED), id="closed with failures"),
    pytest.param(Case(record(Closed(4)), False, Phase.CLOSED, Phase.OPEN), id="closed before the last failure"),
    pytest.param(
        Case(record(Closed(0, trips=1, since_s=NOW_S - 30, on_probation=True)), False, Phase.CLOSED, Phase.OPEN),
        id="on probation",
    ),
    pytest.param(
        Case(record(Closed(), rate_limit_reset_s=NOW_S + FOR_LONG_S), False, Phase.CLOSED, Phase.CLOSED),
        id="rate limited",
    ),
    pytest.param(Case(record(OPEN), True, Phase.OPEN, Phase.OPEN), id="open"),
    pytest.param(
        Case(record(replace(OPEN, until_s=NOW_S - 1)), True, Phase.CLOSED, Phase.HALF_OPEN),
        id="open and its time over",
    ),
    pytest.param(Case(record(HALF_OPEN), True, Phase.CLOSED, Phase.HALF_OPEN), id="half-open"),
    *(
        pytest.param(Case(record(breaker, kind), is_open, shown, shown), id=f"{kind} over {name}")
        for kind, is_open, shown in (
            (OverrideKind.FORCED_OPEN, True, Phase.OPEN),
            (OverrideKind.FORCED_CLOSED, False, Phase.CLOSED),
            (OverrideKind.DISABLED, False, Phase.CLOSED),
        )
        for name, breaker in (("closed", Closed(4)), ("open", OPEN), ("half-open", HALF_OPEN))
    ),
]


@pytest.fixture
def existing(redis_url: str) -> Iterator[ExistingWorker]:
    with ExistingWorker(redis_url) as worker:
        yield worker


async def written(store: Store, before: Record) -> None:
    await store.change(lambda _record, _now_s: before)


async def settled(store: Store) -> Record:
    """Ours, after one of us has looked."""
    seen = await store.change(
        lambda found, now_s: found and records.settled(found, now_s=now_s, policy=POLICY, by="wa")
    )
    assert seen.record is not None
    return seen.record


@pytest.mark.parametrize("case", CASES)
async def test_they_read_every_field_of_ours_by_the_types_they_know(
    store: Store, existing: ExistingWorker, case: Case
) -> None:
    await written(store, case.before)
    fields = existing.read()
    assert OpenRouterState(fields["state"]) is case.before.upstream.state
    assert [float(fields[name]) for name in ("balance", "usage_today", "usage_month")] == [12.5, 1.25, 30.0]
    for name in ("last_check", "last_api_call", "last_success"):
        assert datetime.fromisoformat(fields[name]).utcoffset() is not None
    assert json.loads(fields["error_details"]) == {"error_type": "service_unavailable"}
    assert int(fields["consecutive_failures"]) == case.before.breaker.failures
    assert fields["circuit_breaker_open"] in {"true", "false"}
    assert existing.should_skip_api_call() is case.skip
    reset_s = case.before.upstream.rate_limit_reset_s
    assert (datetime.fromisoformat(fields["rate_limit_reset"]).timestamp() if reset_s else 0.0) == reset_s


@pytest.mark.parametrize("state", OpenRouterState)
async def test_they_read_every_state_of_the_upstream(
    store: Store, existing: ExistingWorker, state: OpenRouterState
) -> None:
    await written(store, Record(epoch=1, upstream=Upstream(state, "Said by a check")))
    assert (existing.read()["state"], existing.read()["message"]) == (state.value, "Said by a check")


@pytest.mark.parametrize("error_type", ErrorType)
async def test_we_read_every_error_of_theirs(store: Store, existing: ExistingWorker, error_type: ErrorType) -> None:
    for _ in range(5):
        assert existing.report_api_error(error_type)
    after = await settled(store)
    assert (after.upstream.state, getattr(after.breaker, "reason", None)) == (error_type.state, error_type.value)


@pytest.mark.parametrize("case", CASES)
async def test_their_success_means_to_us_what_it_should(store: Store, existing: ExistingWorker, case: Case) -> None:
    await written(store, case.before)
    assert existing.report_api_success()
    await holds(store, existing, case, case.after_success)


@pytest.mark.parametrize("case", CASES)
async def test_their_failure_means_to_us_what_it_should(store: Store, existing: ExistingWorker, case: Case) -> None:
    await written(store, case.before)
    assert existing.report_api_error()
    await holds(store, existing, case, case.after_failure)


async def holds(store: Store, existing: ExistingWorker, case: Case, phase: Phase) -> None:
    """One of us looks, and all see the same; what theirs know nothing of is as it was."""
    after = await settled(store)
    assert after.phase(time.time()) is phase
    assert existing.should_skip_api_call() is (phase is not Phase.CLOSED)
    assert (after.override, after.upstream.balance) == (case.before.override, 12.5)
    assert after.upstream.rate_limit_reset_s == case.before.upstream.rate_limit_reset_s
    if phase is Phase.OPEN and isinstance(case.before.breaker, Open) and case.before.override is None:
        assert after.breaker == replace(case.before.breaker, failures=after.breaker.failures)
    if phase is Phase.CLOSED and case.before.override is None:
        assert after.breaker.failures in {0, case.before.breaker.failures + 1}
