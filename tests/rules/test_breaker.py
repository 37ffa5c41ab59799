"""The breaker's own rules, at 100 s on the Redis clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrouter_guard.rules.breaker import (
    Breaker,
    Closed,
    HalfOpen,
    Open,
    Phase,
    Policy,
    opened,
    phase,
    threshold,
    with_clock,
    with_permit,
    without_permit,
)
from openrouter_guard.rules.record import Record, settled

NOW_S = 100.0
POLICY = Policy(reset_timeout_s=10, max_reset_timeout_s=60, stable_s=50, permits=2, permit_lease_s=15)


@pytest.mark.parametrize(
    ("breaker", "expected"),
    [
        pytest.param(Closed(), Phase.CLOSED, id="closed"),
        pytest.param(Closed(failures=99), Phase.CLOSED, id="failures alone do not open it: a commit does"),
        pytest.param(Open("error", 90, 100.1), Phase.OPEN, id="open until its time"),
        pytest.param(Open("error", 90, 100.0), Phase.HALF_OPEN, id="half-open by time alone"),
        pytest.param(HalfOpen("error", 90), Phase.HALF_OPEN, id="half-open as stored"),
    ],
)
def test_the_effective_state_is_what_is_stored_and_the_time(breaker: Breaker, expected: Phase) -> None:
    assert phase(breaker, NOW_S) is expected


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(
            Open("error", 90_000, 90_040, trips=3),
            Open("error", 100, 140, trips=3),
            id="open: waits as at last, from now",
        ),
        pytest.param(
            HalfOpen("error", 90_000, permits={"a": 90_015}, tried_at_s=90_000),
            HalfOpen("error", 100, tried_at_s=100),
            id="half-open: no permit is out until tomorrow",
        ),
        pytest.param(Open("error", 159, 170), Open("error", 159, 170), id="clocks are a little apart"),
        pytest.param(Open("error", 90, 1_000), Open("error", 90, 1_000), id="others may wait longer than we would"),
        pytest.param(Open("error", 90, 9_000, 3), Open("error", 90, 140, 3), id="nobody waits for so long"),
    ],
)
def test_a_clock_that_was_set_back_makes_nobody_wait_for_it_to_catch_up(before: Breaker, after: Breaker) -> None:
    assert with_clock(before, now_s=NOW_S, policy=POLICY) == after
    assert settled(Record(breaker=before, epoch=7), now_s=NOW_S, policy=POLICY, by="me").breaker == after


@pytest.mark.parametrize(
    ("before", "until_s", "trips"),
    [
        pytest.param(Closed(since_s=0), 110, 1, id="the first opening waits the reset timeout"),
        pytest.param(Closed(trips=1, since_s=60), 120, 2, id="soon after closing it waits double"),
        pytest.param(Closed(trips=4, since_s=50), 110, 1, id="after a stable time it starts over"),
        pytest.param(HalfOpen("error", 80, trips=1), 120, 2, id="a failed trial doubles"),
        pytest.param(HalfOpen("error", 80, trips=9), 160, 10, id="up to the longest wait"),
        pytest.param(HalfOpen("error", 80, trips=10**6), 160, 10**6 + 1, id="however often"),
    ],
)
def test_the_wait_grows_with_each_opening(before: Breaker, until_s: float, trips: int) -> None:
    after = opened(before, reason="timeout", now_s=NOW_S, policy=POLICY)
    assert (after.until_s, after.trips) == (until_s, trips)


def test_the_outage_began_with_the_first_opening() -> None:
    assert opened(HalfOpen("error", 80), reason="error", now_s=NOW_S, policy=POLICY).opened_at_s == 80
    assert opened(Closed(), reason="error", now_s=NOW_S, policy=POLICY).opened_at_s == NOW_S


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
    assert with_permit(breaker, "me", now_s=NOW_S, policy=POLICY) is None


def test_permits_are_few_and_leased() -> None:
    first = with_permit(Open("error", 90, 95), "a", now_s=NOW_S, policy=POLICY)
    assert first is not None
    second = with_permit(first, "b", now_s=NOW_S, policy=POLICY)
    assert second is not None
    assert with_permit(second, "c", now_s=NOW_S, policy=POLICY) is None
    assert dict(second.permits) == {"a": 115, "b": 115}


def test_a_dead_holders_permit_is_free_again() -> None:
    breaker = HalfOpen("error", 90, permits={"dead": 100.0, "alive": 100.1})
    after = with_permit(breaker, "me", now_s=NOW_S, policy=POLICY)
    assert after is not None
    assert set(after.permits) == {"alive", "me"}


def test_a_holder_renews_its_lease_even_when_all_are_out() -> None:
    breaker = HalfOpen("error", 90, permits={"a": 101, "b": 101})
    after = with_permit(breaker, "a", now_s=NOW_S, policy=POLICY)
    assert after is not None
    assert dict(after.permits) == {"a": 115, "b": 101}


def test_a_permit_goes_back_without_a_verdict() -> None:
    assert without_permit(HalfOpen("error", 90, permits={"a": 101}), "a") == HalfOpen("error", 90)
    assert without_permit(Closed(3), "a") == Closed(3)
