"""The ramp after the breaker has closed or a rate limit is over: calls come back gradually.

Closed at 100 s, by a trial call that took four seconds; the fleet makes twenty calls at a time.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrouter_guard.rules.admission import admitted_share, model_ramp, ramp
from openrouter_guard.rules.breaker import Breaker, Closed, HalfOpen, Open, Policy
from openrouter_guard.rules.evaluation import evaluate
from openrouter_guard.rules.override import Override, OverrideKind
from openrouter_guard.rules.question import Evidence
from openrouter_guard.rules.ramp import LASTS_CALLS, Ramp
from openrouter_guard.rules.shared_state import SharedState, Upstream
from openrouter_guard.rules.signals import SUCCESS, Effect, ErrorType, Signal
from openrouter_guard.rules.trial_calls import after_trial, limited, with_permit

POLICY = Policy(permits=2, ramp_s=30)
CLOSED = Closed(since=100, call_s=4)
RECORD = SharedState(CLOSED, epoch=1, live_reporters=5, fleet=5, calls_per_minute=300)
OVER_S = 100 + LASTS_CALLS * 4
LIMIT = Signal(Effect.RATE_LIMIT, ErrorType.RATE_LIMITED, wait_s=30)


def share(record: SharedState, now: float) -> float:
    return admitted_share(record, now=now, policy=POLICY)


def going(record: SharedState, now: float) -> Ramp:
    found = ramp(record, now=now, policy=POLICY)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("now", "calls"),
    [
        pytest.param(100.0, 2, id="at first as many as half-open"),
        pytest.param(99.0, 2, id="a clock that is a little behind"),
        pytest.param(104.8, 20, id="after 1.2 call lengths as many as the whole fleet makes at a time"),
    ],
)
def test_so_many_calls_of_the_whole_fleet_may_have_begun(now: float, calls: float) -> None:
    assert going(RECORD, now).begun(now) == pytest.approx(calls)
    assert share(RECORD, now) == pytest.approx(calls / 20)


def test_then_it_goes_on_a_little_faster_than_while_all_is_well_and_ends() -> None:
    steady = going(RECORD, 105.0)
    assert 5 < steady.begun(106.0) - steady.begun(105.0) < 1.3 * 5
    assert ramp(RECORD, now=OVER_S, policy=POLICY) is None
    assert share(RECORD, OVER_S) == 1.0


def test_it_takes_longer_where_calls_do_and_never_longer_than_it_may() -> None:
    slow = replace(RECORD, breaker=replace(CLOSED, call_s=8))
    assert going(slow, 100.0).ends_at == pytest.approx(116)
    slower = replace(RECORD, breaker=replace(CLOSED, call_s=40))
    assert going(slower, 100.0).ends_at == pytest.approx(180)
    endless = replace(RECORD, breaker=replace(CLOSED, call_s=500))
    assert going(endless, 100.0).ends_at == pytest.approx(220)
    hurried = replace(POLICY, ramp_s=3)
    found = ramp(slower, now=100.0, policy=hurried)
    assert found is not None
    assert found.ends_at == pytest.approx(108)


def test_a_short_trial_call_tells_little_where_the_fleet_is_busy() -> None:
    busy = replace(RECORD, breaker=replace(CLOSED, call_s=0.5), live_reporters=20, fleet=20)
    assert going(busy, 100.0).call_s == pytest.approx(4)
    idle = replace(busy, calls_per_minute=1)
    assert going(idle, 100.0).call_s == pytest.approx(5)


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(SharedState(Closed(), live_reporters=100), id="the breaker never was open"),
        pytest.param(SharedState(CLOSED, live_reporters=2, fleet=2), id="two workers are no stampede"),
        pytest.param(SharedState(CLOSED), id="nobody knows of a fleet"),
        pytest.param(SharedState(Open("error", 90, 110), live_reporters=100), id="open"),
        pytest.param(SharedState(HalfOpen("error", 90), live_reporters=100), id="half-open: permits decide"),
    ],
)
def test_where_nobody_is_held_back_there_is_no_ramp(record: SharedState) -> None:
    assert ramp(record, now=100, policy=POLICY) is None
    assert share(record, 100) == 1.0


def test_of_a_fleet_that_comes_back_in_steps_those_who_are_there_share_it_all() -> None:
    few = replace(RECORD, live_reporters=1)
    assert going(few, 103).begun(103) == going(RECORD, 103).begun(103)
    assert (going(few, 103).processes, going(RECORD, 103).processes) == (1, 5)


class TestFailures:
    failing = replace(RECORD, breaker=replace(CLOSED, failures=1, evidence=Evidence(102, 103)))

    def test_one_stops_the_growth_until_a_call_has_succeeded_again(self) -> None:
        stopped, free = going(self.failing, 105), going(RECORD, 105)
        assert stopped.share(105) == pytest.approx(free.share(103))
        assert stopped.share(105) < free.share(105)
        pace = stopped.begun(104) - stopped.begun(103)
        assert stopped.begun(109) - stopped.begun(108) == pytest.approx(pace)

    def test_it_is_not_full_while_they_last_but_for_the_time_that_it_may_take(self) -> None:
        assert share(self.failing, OVER_S + 5) < 1
        assert share(self.failing, 130) == 1.0

    def test_once_it_is_over_one_holds_nobody_back(self) -> None:
        late = replace(CLOSED, failures=1, evidence=Evidence(115, 116))
        assert share(replace(RECORD, breaker=late), 117) == 1.0

    def test_one_of_which_nobody_knows_when_stops_it_at_its_beginning(self) -> None:
        assert share(replace(RECORD, breaker=replace(CLOSED, failures=1)), 105) == pytest.approx(0.1)


class TestProbation:
    record = replace(RECORD, breaker=replace(CLOSED, on_probation=True))

    @pytest.mark.parametrize("now", [100.0, 1_000.0])
    def test_it_does_not_grow(self, now: float) -> None:
        assert share(self.record, now) == pytest.approx(0.1)

    def test_but_others_may_try_where_nothing_is_heard_of_the_first(self) -> None:
        assert going(self.record, 110).begun(110) > going(self.record, 110).begun(100)

    def test_the_first_success_begins_it(self) -> None:
        seen = replace(self.record, upstream=Upstream(last_success_at=104))
        after = evaluate(seen, now=105, policy=POLICY, by="me")
        assert share(after, 105) == pytest.approx(0.1)
        assert share(after, 111) == 1.0


class TestModel:
    """Its wait was over at 100 s."""

    def back(self, now: float, *, is_held: bool) -> Ramp | None:
        return model_ramp(RECORD, 100.0, is_held=is_held, now=now, policy=POLICY)

    def share(self, now: float, *, is_held: bool) -> float:
        found = self.back(now, is_held=is_held)
        return found.share(now) if found else 1.0

    def test_its_calls_come_back_in_a_ramp(self) -> None:
        assert self.share(100.0, is_held=False) == pytest.approx(2 / 25)
        assert self.share(100.0, is_held=False) < self.share(103.0, is_held=False) < 1
        assert self.share(113.0, is_held=False) == 1.0

    def test_until_one_has_succeeded_it_does_not_grow_but_for_a_ramps_time(self) -> None:
        assert self.share(129.0, is_held=True) == pytest.approx(2 / 25)
        assert self.share(129.0, is_held=True) < self.share(133.0, is_held=True) < 1
        assert self.share(143.0, is_held=True) == 1.0

    def test_where_a_person_has_said_that_calls_may_go_there_is_none(self) -> None:
        forced = Override(OverrideKind.FORCED_CLOSED, "ann", "", 500.0)
        record = replace(RECORD, override=forced)
        assert model_ramp(record, 100.0, is_held=True, now=101.0, policy=POLICY) is None


class TestRateLimit:
    at = 1_000.0
    record = replace(RECORD, breaker=Closed())
    told = limited(record, LIMIT, at)

    def test_at_its_end_as_many_may_try_as_while_half_open(self) -> None:
        assert going(self.told, 1_030.0).begun(1_030.0) == 2
        assert share(self.told, 1_030.0) == share(self.told, 1_040.0) == pytest.approx(2 / 25)

    def test_the_first_success_begins_the_ramp(self) -> None:
        seen = replace(self.told, upstream=replace(self.told.upstream, last_success_at=1_033.0))
        after = evaluate(seen, now=1_034, policy=POLICY, by="me")
        assert share(after, 1_034.0) < share(after, 1_036.0) < 1
        assert share(after, 1_034.0 + LASTS_CALLS * 5) == 1.0

    def test_one_of_before_does_not(self) -> None:
        seen = replace(self.told, upstream=replace(self.told.upstream, last_success_at=1_029.0))
        assert evaluate(seen, now=1_034, policy=POLICY, by="me") == seen

    def test_where_no_success_is_ever_told_it_begins_by_itself(self) -> None:
        assert share(self.told, 1_059.9) == pytest.approx(2 / 25)
        assert share(self.told, 1_065.0) > 0.5
        assert share(self.told, 1_075.0) == 1.0

    def test_where_calls_are_long_it_goes_on_for_as_long_as_a_ramp_of_theirs(self) -> None:
        slow = limited(replace(RECORD, breaker=Closed(call_s=40)), LIMIT, self.at)
        after = evaluate(slow, now=1_091, policy=POLICY, by="me")
        assert share(after, 1_091.0) == pytest.approx(0.5, abs=0.1)
        assert share(after, 1_140.0) == 1.0

    def test_one_long_after_it_holds_nobody_back(self) -> None:
        seen = replace(self.told, upstream=replace(self.told.upstream, last_success_at=5_000.0))
        after = evaluate(seen, now=5_001, policy=POLICY, by="me")
        assert isinstance(after.breaker, Closed)
        assert after.breaker.held_until == 0
        assert share(after, 5_001) == 1.0

    def test_one_that_a_trial_call_met_stands_though_another_succeeds(self) -> None:
        half_open = with_permit(replace(RECORD, breaker=HalfOpen("error", 990)), "a", now=1_000, policy=POLICY)
        assert half_open is not None
        closed = after_trial(limited(half_open, LIMIT, 1_001), SUCCESS, "a", now=1_002, policy=POLICY, took_s=2)
        assert share(closed, 1_031) == share(closed, 1_060) == pytest.approx(2 / 10)


def test_the_trial_call_that_closes_the_breaker_says_how_long_a_call_takes() -> None:
    half_open = with_permit(SharedState(HalfOpen("error", 90)), "a", now=100, policy=POLICY)
    assert half_open is not None
    closed = after_trial(half_open, SUCCESS, "a", now=107.1, policy=POLICY, took_s=7.1)
    assert closed.breaker == Closed(since=107.1, call_s=7.1, trips=1)


@pytest.mark.parametrize("breaker", [Open("error", 90, 110), HalfOpen("error", 90)])
def test_permits_decide_until_it_is_closed(breaker: Breaker) -> None:
    assert share(SharedState(breaker, fleet=100), 100.0) == 1.0


def test_the_fleet_is_as_large_as_when_it_was_stopped() -> None:
    record = SharedState(Closed(5, frozenset("abc")), epoch=7, live_reporters=40)
    assert evaluate(record, now=100, policy=POLICY, by="me").fleet == 40


times_s = st.floats(100, 160)
ramps = st.builds(
    Ramp,
    st.just(100.0),
    st.sampled_from([101.0, 130.0]),
    st.integers(1, 10),
    st.floats(1, 20_000),
    st.floats(0.5, 60),
    st.integers(1, 1_000),
    st.just(float("inf")) | times_s,
    st.booleans(),
)


@given(ramps, times_s, times_s)
def test_what_may_have_begun_never_falls_and_the_share_neither(found: Ramp, one: float, other: float) -> None:
    before, after = sorted((one, other))
    assert found.first <= found.begun(before) <= found.begun(after)
    assert 0 < found.share(before) <= found.share(after) <= 1


@given(ramps, times_s, st.floats(0, 100))
def test_a_turn_comes_once_so_many_more_may_have_begun(found: Ramp, now: float, calls: float) -> None:
    begins_at = found.begins_at(calls, now)
    assert begins_at >= now
    if begins_at < min(found.ends_at, now + 60):
        assert found.begun(begins_at) - found.begun(now) == pytest.approx(calls, abs=found.calls)
        assert found.begun(begins_at) - found.begun(now) >= calls * 0.999999


@given(ramps)
def test_it_ends(found: Ramp) -> None:
    assert found.ends_at <= found.until


@given(st.floats(0.5, 60), st.integers(20, 20_000))
def test_it_is_never_much_faster_than_a_healthy_fleet(call_s: float, calls: int) -> None:
    busy = SharedState(
        Closed(since=100, call_s=call_s), live_reporters=20, fleet=calls, calls_per_minute=60 * calls / call_s
    )
    found = going(busy, 100.0)
    second_s = min(call_s, 1.0)
    steps = [100 + step * found.lasts_s / 50 for step in range(50)]
    fastest = max(found.begun(at + second_s) - found.begun(at) for at in steps)
    assert fastest <= 1.5 * calls / call_s * second_s
