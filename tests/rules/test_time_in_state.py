"""Every millisecond is counted for one state of one day."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrouter_guard.rules import shared_state, transitions, trial_calls
from openrouter_guard.rules.breaker import BreakerState, Closed, HalfOpen, Open, Policy
from openrouter_guard.rules.loss import recovered
from openrouter_guard.rules.override import Override, OverrideKind
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.rules.time_in_state import Times, kept, passed, put_down, timed_until
from openrouter_guard.rules.units import DAY_S
from tests.rules.stories import Story, lose, steps

MIDNIGHT_S = datetime(2026, 3, 1, tzinfo=UTC).timestamp()
TODAY_S = MIDNIGHT_S - DAY_S
LOOK_MS = 125
OPEN = Open("timeout", opened_at=MIDNIGHT_S - 100, until=MIDNIGHT_S + 20)


def record(breaker: Closed | Open | HalfOpen, *, timed_until: float, override: Override | None = None) -> SharedState:
    return SharedState(breaker, epoch=1, timed_until=timed_until, override=override)


def seconds(times: Times) -> dict[float, dict[str, float]]:
    return {day_s: {phase.value: ms / 1000 for phase, ms in day.items() if ms} for day_s, day in times.items()}


def override(kind: OverrideKind, until: float) -> Override:
    return Override(kind, "ann", "a test", until)


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        pytest.param(
            record(Closed(), timed_until=MIDNIGHT_S + 10),
            MIDNIGHT_S + 15.25,
            {MIDNIGHT_S: {"closed": 5.25}},
            id="closed",
        ),
        pytest.param(
            record(Closed(), timed_until=MIDNIGHT_S - 2),
            MIDNIGHT_S + 3,
            {TODAY_S: {"closed": 2}, MIDNIGHT_S: {"closed": 3}},
            id="each day has its part",
        ),
        pytest.param(
            record(OPEN, timed_until=MIDNIGHT_S - 5),
            MIDNIGHT_S + 50,
            {TODAY_S: {"open": 5}, MIDNIGHT_S: {"open": 20, "half_open": 30}},
            id="open turns half-open by time alone",
        ),
        pytest.param(
            record(Closed(), timed_until=TODAY_S, override=override(OverrideKind.FORCED_OPEN, TODAY_S + 60)),
            TODAY_S + 100,
            {TODAY_S: {"open": 60, "closed": 40}},
            id="an override ends by time alone",
        ),
        pytest.param(
            record(OPEN, timed_until=MIDNIGHT_S, override=override(OverrideKind.FORCED_CLOSED, MIDNIGHT_S + 5)),
            MIDNIGHT_S + 30,
            {MIDNIGHT_S: {"closed": 5, "open": 15, "half_open": 10}},
            id="and what it covered goes on",
        ),
        pytest.param(
            record(Closed(), timed_until=MIDNIGHT_S), MIDNIGHT_S - 1, {}, id="a clock that went back adds nothing"
        ),
        pytest.param(record(Closed(), timed_until=MIDNIGHT_S), MIDNIGHT_S, {}, id="no time, nothing"),
        pytest.param(
            SharedState(Closed()), MIDNIGHT_S, {}, id="a state that only older writers know has no beginning"
        ),
    ],
)
def test_the_time_that_passed(before: SharedState, now: float, expected: dict[float, dict[str, float]]) -> None:
    assert seconds(passed(before, now)) == expected


def test_a_long_time_is_cut_to_the_days_that_are_kept() -> None:
    times = passed(record(Closed(), timed_until=MIDNIGHT_S - 90 * DAY_S), MIDNIGHT_S)
    assert len(times) == 30
    assert set(map(frozenset, (day.items() for day in seconds(times).values()))) == {frozenset({("closed", DAY_S)})}


def test_a_fresh_state_begins_with_its_epoch() -> None:
    assert timed_until(shared_state.fresh(MIDNIGHT_S)) == MIDNIGHT_S


def test_a_state_without_a_mark_begins_with_its_last_transition() -> None:
    opened = transitions.now_open(shared_state.fresh(MIDNIGHT_S), "timeout", "wa", MIDNIGHT_S + 7, Policy())
    assert timed_until(opened) == MIDNIGHT_S + 7


def test_between_transitions_it_is_put_down_twice_a_minute() -> None:
    before = record(Closed(), timed_until=MIDNIGHT_S)
    assert put_down(before, MIDNIGHT_S + 29) is before
    assert put_down(before, MIDNIGHT_S + 30).timed_until == MIDNIGHT_S + 30


def test_a_transition_puts_down_the_time_in_the_state_before() -> None:
    before = replace(shared_state.fresh(MIDNIGHT_S), breaker=Closed(failures=5))
    after, times = kept(
        before, transitions.now_open(before, "timeout", "wa", MIDNIGHT_S + 9, Policy()), MIDNIGHT_S + 9
    )
    assert seconds(times) == {MIDNIGHT_S: {"closed": 9}}
    assert after.timed_until == MIDNIGHT_S + 9


def test_a_permit_and_a_check_put_nothing_down() -> None:
    before = record(HalfOpen("timeout", MIDNIGHT_S), timed_until=MIDNIGHT_S)
    asked = trial_calls.with_permit(before, "wa/1", now=MIDNIGHT_S + 5, policy=Policy())
    assert asked is not None
    assert kept(before, asked, MIDNIGHT_S + 5) == (asked, {})


class TestWhenRedisLostTheState:
    known = record(OPEN, timed_until=MIDNIGHT_S - 100)

    def test_the_time_that_was_known_is_put_down_with_what_begins_again(self) -> None:
        again = recovered(self.known, None, MIDNIGHT_S, Policy())
        assert again is not None
        after, times = kept(None, again, MIDNIGHT_S)
        assert seconds(times) == {TODAY_S: {"open": 100}}
        assert (passed(after, MIDNIGHT_S), after.owed) == ({}, {})

    def test_it_counts_for_the_state_that_it_was(self) -> None:
        """A half-open breaker begins again, and with it a moment in which nobody gets a permit."""
        turned = replace(self.known, breaker=replace(OPEN, until=MIDNIGHT_S - 20))
        again = recovered(turned, None, MIDNIGHT_S, Policy())
        assert again is not None
        assert seconds(kept(None, again, MIDNIGHT_S)[1]) == {TODAY_S: {"open": 80, "half_open": 20}}

    def test_what_began_meanwhile_has_its_own(self) -> None:
        """Some worker that knew of nothing began a closed state, four seconds ago."""
        begun = int(MIDNIGHT_S - 4) * 1000
        fresh = SharedState(epoch=begun, begun=begun)
        joined = recovered(self.known, fresh, MIDNIGHT_S, Policy())
        assert joined is not None
        after, times = kept(fresh, joined, MIDNIGHT_S)
        assert seconds(times) == {TODAY_S: {"open": 96, "closed": 4}}
        # A second one that knows the same adds nothing.
        assert recovered(self.known, after, MIDNIGHT_S, Policy()) is None

    def test_what_has_been_put_down_since_is_not_put_down_again(self) -> None:
        begun = int(MIDNIGHT_S - 40) * 1000
        fresh = SharedState(epoch=begun, begun=begun, timed_until=MIDNIGHT_S - 10)
        joined = recovered(self.known, fresh, MIDNIGHT_S, Policy())
        assert joined is not None
        after, times = kept(fresh, joined, MIDNIGHT_S)
        assert (seconds(times), after.timed_until) == ({}, MIDNIGHT_S - 10)

    def test_an_older_state_that_came_back_lasts_until_what_is_known_began(self) -> None:
        older = replace(record(Closed(), timed_until=MIDNIGHT_S - 110), epoch=0)
        again = recovered(self.known, older, MIDNIGHT_S, Policy())
        assert again is not None
        after, times = kept(older, again, MIDNIGHT_S)
        assert seconds(times) == {TODAY_S: {"closed": 10}}
        assert seconds(passed(after, MIDNIGHT_S)) == {TODAY_S: {"open": 100}}

    def test_a_transition_at_that_moment_begins_anew(self) -> None:
        moved = transitions.now_open(shared_state.fresh(MIDNIGHT_S), "timeout", "wa", MIDNIGHT_S, Policy())
        after, times = kept(None, moved, MIDNIGHT_S)
        assert (after.timed_until, times) == (MIDNIGHT_S, {})


@given(steps, st.integers(0, 200))
def test_of_any_story_every_millisecond_is_in_the_state_that_readers_saw(
    story: Story, before_midnight_s: float
) -> None:
    start_s = now = MIDNIGHT_S - before_midnight_s
    current = replace(shared_state.fresh(start_s), live_reporters=1, timed_until=start_s)
    put: Counter[tuple[float, BreakerState]] = Counter()
    seen: Counter[tuple[float, BreakerState]] = Counter()
    for event, pause_s in story:
        seen.update(looked_at(current, now, pause_s))
        now += pause_s
        after = event(current, now)
        old = None if event is lose and after else current
        current, times = kept(old, put_down(after or current, now), now)
        add(put, times)
    add(put, passed(current, now))
    for of_day in put | seen:
        # An open breaker turns between two looks.
        assert abs(put[of_day] - seen[of_day]) <= LOOK_MS * len(story)
    assert sum(put.values()) == round((now - start_s) * 1000)


def looked_at(current: SharedState, start_s: float, for_s: float) -> Counter[tuple[float, BreakerState]]:
    """What a reader sees who looks again and again."""
    found: Counter[tuple[float, BreakerState]] = Counter()
    for look in range(int(for_s * 1000 / LOOK_MS)):
        at = start_s + look * LOOK_MS / 1000
        found[at // DAY_S * DAY_S, current.phase(at)] += LOOK_MS
    return found


def add(total: Counter[tuple[float, BreakerState]], times: Times) -> None:
    for day_s, day in times.items():
        total.update({(day_s, phase): ms for phase, ms in day.items()})
