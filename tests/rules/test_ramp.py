"""After the breaker has closed, those who waited do not all come back at once. Closed at 100 s."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrouter_guard.rules.admission import admitted_share
from openrouter_guard.rules.breaker import Breaker, Closed, HalfOpen, Open, Policy
from openrouter_guard.rules.settling import settled
from openrouter_guard.rules.shared_state import Record

POLICY = Policy(permits=2, ramp_s=30)


def share(record: Record, now_s: float) -> float:
    return admitted_share(record, now_s=now_s, policy=POLICY)


@pytest.mark.parametrize(
    ("fleet", "now_s", "expected"),
    [
        pytest.param(100, 100.0, 0.02, id="at first as many as half-open"),
        pytest.param(100, 115.0, 0.51, id="half of the ramp, half of the rest"),
        pytest.param(100, 130.0, 1.0, id="then all"),
        pytest.param(100, 99.0, 0.02, id="a clock that is a little behind"),
        pytest.param(4, 100.0, 0.5, id="a small fleet waits less"),
        pytest.param(2, 100.0, 1.0, id="two workers are no stampede"),
        pytest.param(0, 100.0, 1.0, id="nobody knows of a fleet"),
    ],
)
def test_the_share_grows(fleet: int, now_s: float, expected: float) -> None:
    assert share(Record(Closed(since_s=100), fleet=fleet), now_s) == pytest.approx(expected)


def test_a_breaker_that_never_was_open_has_no_ramp() -> None:
    assert share(Record(Closed(), fleet=100), 0.0) == 1.0


@pytest.mark.parametrize("now_s", [100.0, 1_000.0])
def test_on_probation_it_does_not_grow(now_s: float) -> None:
    assert share(Record(Closed(since_s=100, on_probation=True), fleet=100), now_s) == 0.02


def test_a_failure_stops_it_until_a_call_has_succeeded_again() -> None:
    closed = Closed(since_s=100)
    assert share(Record(replace(closed, failures=1), fleet=100), 120.0) == 0.02
    assert share(Record(closed, fleet=100), 120.0) > 0.6


def test_once_it_is_over_a_failure_holds_nobody_back() -> None:
    assert share(Record(Closed(1, since_s=100), fleet=100), 130.0) == 1.0


@pytest.mark.parametrize("breaker", [Open("error", 90, 110), HalfOpen("error", 90)])
def test_permits_decide_until_it_is_closed(breaker: Breaker) -> None:
    assert share(Record(breaker, fleet=100), 100.0) == 1.0


def test_the_fleet_is_as_large_as_when_it_was_stopped() -> None:
    record = Record(Closed(5, frozenset("abc")), epoch=7, live_reporters=40)
    assert settled(record, now_s=100, policy=POLICY, by="me").fleet == 40


@given(st.integers(0, 10_000), st.floats(0, 60), st.floats(0, 60))
def test_it_never_falls_and_never_stops_all(fleet: int, one: float, other: float) -> None:
    record, (before, after) = Record(Closed(since_s=100), fleet=fleet), sorted((one, other))
    assert 0 < share(record, 100 + before) <= share(record, 100 + after) <= 1
