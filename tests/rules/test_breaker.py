"""The breaker's own rules, at 100 s on the Redis clock."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrouter_guard.rules.breaker import (
    Breaker,
    BreakerState,
    Closed,
    HalfOpen,
    Open,
    Policy,
    opened,
    phase,
    threshold,
    wait_s,
    with_clock,
    with_permit,
    without_permit,
)
from openrouter_guard.rules.evaluation import evaluate
from openrouter_guard.rules.shared_state import SharedState

NOW_S = 100.0
LONG_AGO_S = NOW_S - 3_600
POLICY = Policy(
    first_wait_s=10, longest_wait_s=30, max_reset_timeout_s=60, stable_s=50, permits=2, permit_lease_s=15, jitter=0
)
REVOKED = "api_key_invalid"


@pytest.mark.parametrize(
    ("breaker", "expected"),
    [
        pytest.param(Closed(), BreakerState.CLOSED, id="closed"),
        pytest.param(Closed(failures=99), BreakerState.CLOSED, id="failures alone do not open it: a commit does"),
        pytest.param(Open("error", 90, 100.1), BreakerState.OPEN, id="open until its time"),
        pytest.param(Open("error", 90, 100.0), BreakerState.HALF_OPEN, id="half-open by time alone"),
        pytest.param(HalfOpen("error", 90), BreakerState.HALF_OPEN, id="half-open as stored"),
    ],
)
def test_the_effective_state_is_what_is_stored_and_the_time(breaker: Breaker, expected: BreakerState) -> None:
    assert phase(breaker, NOW_S) is expected


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(
            Open("error", 90_000, 90_040, trips=3),
            Open("error", 100, 122.5, trips=3),
            id="open: waits as at last, from now",
        ),
        pytest.param(
            HalfOpen("error", 90_000, permits={"a": 90_015}, tried_at=90_000),
            HalfOpen("error", 100, tried_at=100),
            id="half-open: no permit is out until tomorrow",
        ),
        pytest.param(Open("error", 159, 170), Open("error", 159, 170), id="clocks are a little apart"),
        pytest.param(Open("error", 90, 1_000), Open("error", 90, 1_000), id="others may wait longer than we would"),
        pytest.param(Open("error", 90, 9_000, 3), Open("error", 90, 122.5, 3), id="nobody waits for so long"),
    ],
)
def test_a_clock_that_was_set_back_makes_nobody_wait_for_it_to_catch_up(before: Breaker, after: Breaker) -> None:
    assert with_clock(before, now=NOW_S, policy=POLICY) == after
    assert evaluate(SharedState(breaker=before, epoch=7), now=NOW_S, policy=POLICY, by="me").breaker == after


@pytest.mark.parametrize(
    ("before", "reason", "waits_s", "trips"),
    [
        pytest.param(Closed(since=0), "timeout", 10, 1, id="the first opening waits the first wait"),
        pytest.param(Closed(trips=1, since=60), "timeout", 15, 2, id="soon after closing half as long again"),
        pytest.param(Closed(trips=4, since=50), "timeout", 10, 1, id="after a stable time it starts over"),
        pytest.param(
            HalfOpen("error", LONG_AGO_S, trips=1), "timeout", 15, 2, id="a failed trial: half as long again"
        ),
        pytest.param(HalfOpen("error", LONG_AGO_S, trips=2), "timeout", 22.5, 3, id="and again"),
        pytest.param(HalfOpen("error", LONG_AGO_S, trips=3), "timeout", 30, 4, id="up to the longest wait"),
        pytest.param(HalfOpen("error", LONG_AGO_S, trips=10**6), "timeout", 30, 10**6 + 1, id="however often"),
        pytest.param(HalfOpen("error", NOW_S - 60, trips=6), "timeout", 10, 7, id="not in a short outage"),
        pytest.param(HalfOpen("error", NOW_S - 200, trips=6), "timeout", 20, 7, id="a tenth of it at the most"),
        pytest.param(HalfOpen(REVOKED, NOW_S - 60, trips=2), REVOKED, 40, 3, id="but where a person must act"),
        pytest.param(Closed(since=0), REVOKED, 10, 1, id="a refused key waits as long at first"),
        pytest.param(HalfOpen(REVOKED, 80, trips=2), REVOKED, 40, 3, id="and then twice as long each time"),
        pytest.param(HalfOpen(REVOKED, 80, trips=9), "credits_exhausted", 60, 10, id="up to a bound of its own"),
        pytest.param(Closed(trips=7, since=60), REVOKED, 10, 1, id="what closed has a key that worked"),
        pytest.param(HalfOpen("error", 80, trips=9), REVOKED, 10, 1, id="another trouble begins its own count"),
        pytest.param(HalfOpen(REVOKED, 80, trips=9), "error", 10, 1, id="and the other way round"),
    ],
)
def test_the_wait_grows_with_each_opening(before: Breaker, reason: str, waits_s: float, trips: int) -> None:
    after = opened(before, reason=reason, now=NOW_S, policy=POLICY)
    assert (after.until - NOW_S, after.trips) == (waits_s, trips)


@pytest.mark.parametrize("trips", [1, 2, 3, 50])
def test_the_reset_timeout_is_the_longest_that_anybody_waits(trips: int) -> None:
    assert wait_s(trips, replace(POLICY, reset_timeout_s=2), "timeout") == 2


def test_by_default_an_outage_of_an_hour_costs_some_240_trial_calls() -> None:
    ends_s = [0.0]
    while ends_s[-1] < 3_600:
        ends_s.append(ends_s[-1] + wait_s(len(ends_s), Policy(), "service_unavailable", lasted_s=ends_s[-1]))
    assert [round(end_s) for end_s in ends_s[:13]] == [0, 6, 12, 18, 24, 30, 36, 42, 48, 54, 60, 66, 73]
    assert ends_s[-1] - ends_s[-2] == 15
    assert len(ends_s) - 2 <= 250


@pytest.mark.parametrize(
    ("now", "until", "trips"),
    [
        pytest.param(100.0, 150, 3, id="the wait goes on as if nobody had tried"),
        pytest.param(151.0, 150, 3, id="a call that took until after its end: the next one goes at once"),
    ],
)
def test_a_call_that_a_check_had_go_early_costs_no_time_if_it_fails(now: float, until: float, trips: int) -> None:
    early = HalfOpen(REVOKED, 80, trips=3, until=150)
    after = opened(early, reason=REVOKED, now=now, policy=POLICY)
    assert (after.until, after.trips) == (until, trips)


def test_one_that_went_after_the_end_of_the_wait_is_a_trial_like_any_other() -> None:
    tried = with_permit(HalfOpen(REVOKED, 80, trips=3, until=99), "me", now=NOW_S, policy=POLICY)
    assert tried is not None
    assert opened(tried, reason=REVOKED, now=NOW_S + 1, policy=POLICY).trips == 4


def test_one_that_only_goes_on_after_it_is_not() -> None:
    early = HalfOpen(REVOKED, 80, trips=3, permits={"me": 101}, until=99)
    renewed = with_permit(early, "me", now=NOW_S, policy=POLICY)
    assert renewed is not None
    assert opened(renewed, reason=REVOKED, now=NOW_S + 1, policy=POLICY).trips == 3


def test_the_outage_began_with_the_first_opening() -> None:
    assert opened(HalfOpen("error", 80), reason="error", now=NOW_S, policy=POLICY).opened_at == 80
    assert opened(Closed(), reason="error", now=NOW_S, policy=POLICY).opened_at == NOW_S


@pytest.mark.parametrize(
    ("calls_per_minute", "expected"),
    [
        pytest.param(0.0, 5, id="a fleet of which nothing is known"),
        pytest.param(2.0, 5, id="one worker, two calls a minute"),
        pytest.param(100.0, 7, id="50 workers, calls of 30 s"),
        pytest.param(400.0, 8, id="200 workers"),
        pytest.param(2_000.0, 8, id="1,000 workers"),
        pytest.param(10_000 / 43_200, 5, id="never fewer than the setting"),
        pytest.param(1e8 / 43_200, 8, id="exactly eight powers of ten"),
        pytest.param(-3.0, 5, id="a field that somebody else wrote"),
    ],
)
def test_a_busy_fleet_needs_more_failures_in_a_row(calls_per_minute: float, expected: int) -> None:
    assert threshold(calls_per_minute, Policy()) == expected


@given(st.floats(0, 1e9), st.floats(0, 1e9))
def test_more_calls_never_need_fewer_failures(one: float, other: float) -> None:
    few, many = sorted((one, other))
    assert threshold(few, Policy()) <= threshold(many, Policy())


@pytest.mark.parametrize("breaker", [Closed(), Open("error", 90, 101)])
def test_there_are_no_permits_unless_half_open(breaker: Breaker) -> None:
    assert with_permit(breaker, "me", now=NOW_S, policy=POLICY) is None


def test_permits_are_few_and_leased() -> None:
    first = with_permit(Open("error", 90, 95), "a", now=NOW_S, policy=POLICY)
    assert first is not None
    second = with_permit(first, "b", now=NOW_S, policy=POLICY)
    assert second is not None
    assert with_permit(second, "c", now=NOW_S, policy=POLICY) is None
    assert dict(second.permits) == {"a": 115, "b": 115}


@pytest.mark.parametrize(
    ("passed_s", "permits"),
    [
        pytest.param(0.0, 1, id="one at first"),
        pytest.param(-5.0, 1, id="by a clock that is a little behind"),
        pytest.param(9.9, 1, id="as long as it may still bring a verdict"),
        pytest.param(10.0, 2, id="then a second one"),
        pytest.param(20.0, 3, id="and a third one"),
        pytest.param(1e6, 3, id="and never more than there are"),
    ],
)
def test_trial_calls_go_one_after_the_other(passed_s: float, permits: int) -> None:
    staggered = replace(POLICY, permits=3, next_trial_s=10)
    breaker: Breaker = HalfOpen("error", 90)
    for owner in "abcd"[:permits]:
        taken = with_permit(breaker, owner, now=NOW_S, policy=staggered, since=NOW_S - passed_s)
        assert taken is not None
        breaker = taken
    assert with_permit(breaker, "e", now=NOW_S, policy=staggered, since=NOW_S - passed_s) is None


def test_who_has_a_permit_renews_it_whenever_the_next_one_may_go() -> None:
    breaker = HalfOpen("error", 90, permits={"a": 101, "b": 101})
    assert with_permit(breaker, "a", now=NOW_S, policy=POLICY, since=NOW_S) is not None


def test_a_dead_holders_permit_is_free_again() -> None:
    breaker = HalfOpen("error", 90, permits={"dead": 100.0, "alive": 100.1})
    after = with_permit(breaker, "me", now=NOW_S, policy=POLICY)
    assert after is not None
    assert set(after.permits) == {"alive", "me"}


def test_a_holder_renews_its_lease_even_when_all_are_out() -> None:
    breaker = HalfOpen("error", 90, permits={"a": 101, "b": 101})
    after = with_permit(breaker, "a", now=NOW_S, policy=POLICY)
    assert after is not None
    assert dict(after.permits) == {"a": 115, "b": 101}


def test_a_permit_goes_back_without_a_verdict() -> None:
    assert without_permit(HalfOpen("error", 90, permits={"a": 101}), "a") == HalfOpen("error", 90)
    assert without_permit(Closed(3), "a") == Closed(3)
