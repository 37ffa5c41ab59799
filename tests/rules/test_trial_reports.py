"""With no one to make a trial call, two reported successes close the breaker on probation."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrouter_guard.rules.breaker import Breaker, BreakerState, Closed, HalfOpen, Open, Policy, waits_for_trial
from openrouter_guard.rules.codec import encode, parse
from openrouter_guard.rules.override import Override, OverrideKind
from openrouter_guard.rules.shared_state import SharedState, Upstream
from openrouter_guard.rules.trial_reports import SPACED_S, Told, nobody_tries, reported

POLICY = Policy()
NOW_S = 1_800_000_000.0
IDLE = SharedState(Open("timeout", NOW_S - 90, NOW_S - 70, trips=2), epoch=7)
"""Half-open for 70 s, and nobody has tried."""


def told(
    record: SharedState, now: float, *, epoch: int = 7, success: bool = True, took_s: float = 0.0
) -> SharedState:
    return reported(record, [Told(success, epoch, now - took_s)], now=now, policy=POLICY, by="go-1")


def is_closed(record: SharedState, now: float) -> bool:
    return record.phase(now) is BreakerState.CLOSED


def test_two_with_time_between_them_close_it_on_probation() -> None:
    once = told(IDLE, NOW_S)
    assert not is_closed(once, NOW_S)
    twice = told(once, NOW_S + SPACED_S)
    assert twice.breaker == Closed(trips=2, since=NOW_S + SPACED_S, on_probation=True)
    assert (twice.epoch, twice.transitions[-1].reason, twice.good_report_at) == (8, "reports_succeeded", 0)
    assert twice.upstream.message == "Reported calls succeed"


@pytest.mark.parametrize("later_s", [0.0, 0.5, 1.0, SPACED_S - 0.1])
def test_two_in_one_moment_are_not_spaced(later_s: float) -> None:
    assert told(told(IDLE, NOW_S), NOW_S + later_s) == told(IDLE, NOW_S)


def test_nor_are_two_in_one_report() -> None:
    both = [Told(True, 7, NOW_S - 9), Told(True, 7, NOW_S)]
    assert not is_closed(reported(IDLE, both, now=NOW_S, policy=POLICY, by="go-1"), NOW_S)


def test_a_failure_between_them_begins_anew() -> None:
    after = told(told(told(IDLE, NOW_S), NOW_S + 2, success=False), NOW_S + SPACED_S)
    assert (is_closed(after, NOW_S + SPACED_S), after.good_report_at) == (False, NOW_S + SPACED_S)


@pytest.mark.parametrize(
    "late",
    [
        pytest.param({"epoch": 6}, id="an earlier epoch"),
        pytest.param({"epoch": 8}, id="one that never was"),
        pytest.param({"took_s": 100.0}, id="begun before it was half-open"),
        pytest.param({"epoch": 0, "took_s": 100.0}, id="the same, of an epoch that is not known"),
    ],
)
def test_a_call_that_began_before_counts_nothing(late: dict[str, float]) -> None:
    assert told(IDLE, NOW_S, **late) is IDLE  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "breaker",
    [
        pytest.param(Open("timeout", NOW_S - 90, NOW_S + 60), id="still open"),
        pytest.param(Open("timeout", NOW_S - 90, NOW_S - 30), id="half-open for less than the trial wait"),
        pytest.param(HalfOpen("timeout", NOW_S - 90, tried_at=NOW_S - 30), id="a trial call not long ago"),
        pytest.param(
            HalfOpen("timeout", NOW_S - 90, permits={"w/1": NOW_S + 15}, tried_at=NOW_S - 70), id="one under way"
        ),
    ],
)
def test_as_long_as_somebody_may_try_they_close_nothing(breaker: Breaker) -> None:
    record = replace(IDLE, breaker=breaker, good_report_at=NOW_S - 20)
    assert told(record, NOW_S).breaker == breaker


@pytest.mark.parametrize(
    "waiting",
    [
        pytest.param(replace(IDLE, upstream=Upstream(rate_limit_reset_at=NOW_S + 60)), id="a rate limit"),
        pytest.param(
            replace(IDLE, override=Override(OverrideKind.FORCED_OPEN, "ann", "drill", NOW_S + 60)), id="a person"
        ),
    ],
)
def test_what_else_keeps_calls_waiting_stands(waiting: SharedState) -> None:
    assert told(told(waiting, NOW_S), NOW_S + 9) == waiting


def test_one_of_an_earlier_outage_is_not_the_first_of_two() -> None:
    """Where a worker of an earlier version, which does not know the field, changed the state since."""
    again = replace(IDLE, good_report_at=NOW_S - 600)
    assert not is_closed(told(again, NOW_S), NOW_S)


def test_the_first_one_is_the_same_once_written_and_read() -> None:
    once = told(IDLE, NOW_S)
    read = parse({name: value for name, value in encode(once).items() if value}, NOW_S)
    assert read.good_report_at == once.good_report_at == NOW_S


reports = st.lists(
    st.tuples(
        st.floats(0.0, 40.0),
        st.sampled_from([True, True, True, False]),
        st.sampled_from([0, 6, 7, 7, 7, 8]),
        st.floats(0.0, 200.0) | st.just(0.0),
    ),
    max_size=12,
)
breakers = st.sampled_from(
    [
        IDLE.breaker,
        Open("timeout", NOW_S - 90, NOW_S + 30),
        HalfOpen("timeout", NOW_S - 90, tried_at=NOW_S - 10),
        HalfOpen("timeout", NOW_S - 90, permits={"w/1": NOW_S + 100}, tried_at=NOW_S),
    ]
)


@given(breakers, reports)
def test_whatever_is_reported_it_closes_by_two_good_ones_alone(
    breaker: Breaker, reports: list[tuple[float, bool, int, float]]
) -> None:
    record, now, good = replace(IDLE, breaker=breaker), NOW_S, list[float]()
    for pause_s, success, epoch, took_s in reports:
        now += pause_s
        after = told(record, now, epoch=epoch, success=success, took_s=took_s)
        since = getattr(record.breaker, "tried_at", 0.0) or getattr(record.breaker, "until", 0.0)
        if epoch in (0, record.epoch) and now - took_s >= since:
            good = [*good, now] if success else []
        if is_closed(after, now):
            assert waits_for_trial(record.breaker, now=now, policy=POLICY)
            assert good[-1] - good[0] >= SPACED_S
            assert isinstance(after.breaker, Closed)
            assert after.breaker.on_probation
            return
        assert (after.breaker, after.epoch) == (record.breaker, record.epoch)
        record = after


class TestNobodyTries:
    @pytest.mark.parametrize(
        ("record", "expected"),
        [
            pytest.param(IDLE, True, id="for a minute nobody has, and no service checks"),
            pytest.param(SharedState(), False, id="closed"),
            pytest.param(replace(IDLE, breaker=Open("timeout", NOW_S - 90, NOW_S + 1)), False, id="open"),
            pytest.param(replace(IDLE, breaker=Open("timeout", NOW_S - 90, NOW_S - 59)), False, id="not yet long"),
            pytest.param(
                replace(IDLE, breaker=HalfOpen("timeout", NOW_S - 90, permits={"w/1": NOW_S + 1})), False, id="tried"
            ),
            pytest.param(replace(IDLE, upstream=Upstream(checked_at=NOW_S - 61)), False, id="a service checks"),
            pytest.param(replace(IDLE, good_checks=1), False, id="an earlier system checks"),
            pytest.param(replace(IDLE, upstream=Upstream(rate_limit_reset_at=NOW_S + 9)), False, id="nobody may"),
        ],
    )
    def test_it_is_so(self, record: SharedState, expected: bool) -> None:
        assert nobody_tries(record, NOW_S, POLICY) is expected
