"""The goal for all workloads together, at 1,000 s on the Redis clock; the outage began at 900 s."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openrouter_guard.rules.breaker import Breaker, BreakerState, Closed, Open
from openrouter_guard.rules.codec import iso
from openrouter_guard.rules.override import Override, OverrideKind
from openrouter_guard.rules.shared_state import SharedState, Transition
from openrouter_operator.decisions import goal as goals
from openrouter_operator.decisions.goal import Goal, Step
from openrouter_operator.decisions.snapshot import ScopeSnapshot
from tests.operator.samples import (
    NOW_S,
    OPENED_S,
    closed,
    half_open,
    opened,
    snapshot,
    spec,
    unknown,
)

OUTAGE = f"default/{iso(OPENED_S)}"
ALL_BACK = Goal(Step.RESUME, "BreakerClosed", share=1.0)

# -- the goal: nobody acts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", [opened(), half_open(), closed(), unknown(0.0)], ids=repr)
@pytest.mark.parametrize("paused_at", [None, OPENED_S])
def test_a_suspended_resource_changes_nothing_whatever_happens(seen: ScopeSnapshot, paused_at: float | None) -> None:
    assert goals.goal(spec(suspend=True, maxPauseSeconds=60), seen, paused_at) == Goal(Step.KEEP, "Suspended")


@pytest.mark.parametrize("seen", [opened(), half_open(), closed(), unknown(0.0)], ids=repr)
def test_a_resource_that_only_observes_gives_everything_back(seen: ScopeSnapshot) -> None:
    assert goals.goal(spec(mode="Observe"), seen, OPENED_S) == Goal(Step.RESUME, "ObserveOnly", share=1.0)


def test_a_suspended_resource_does_not_even_give_back() -> None:
    assert goals.goal(spec(mode="Observe", suspend=True), opened(), OPENED_S).step is Step.KEEP


# -- the goal: the breaker is open ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "seen", "paused_at", "expected"),
    [
        pytest.param(
            {"pauseAfterSeconds": 101}, opened(until=1_020), None,
            Goal(Step.KEEP, "BreakerOpen", next_at=1_001), id="a moment before the grace is over nothing is paused",
        ),
        pytest.param(
            {"pauseAfterSeconds": 100}, opened(until=1_020), None,
            Goal(Step.PAUSE, "BreakerOpen", next_at=1_020), id="at the end of the grace everything is",
        ),
        pytest.param(
            {"pauseAfterSeconds": 100}, opened(until=1_011), None,
            Goal(Step.KEEP, "BreakerOpen", next_at=1_011),
            id="unless a trial call is about to tell whether the outage is over",
        ),
        pytest.param(
            {"pauseAfterSeconds": 0}, opened(NOW_S, until=NOW_S + 1), None,
            Goal(Step.PAUSE, "BreakerOpen", next_at=NOW_S + 1), id="without a grace nobody waits for one",
        ),
        pytest.param(
            {"pauseAfterSeconds": 0}, opened(NOW_S, until=1_120), None,
            Goal(Step.PAUSE, "BreakerOpen", next_at=1_120), id="without a grace at once",
        ),
        pytest.param(
            {"pauseAfterSeconds": 500}, opened(until=1_020), None,
            Goal(Step.KEEP, "BreakerOpen", next_at=1_020),
            id="a grace that outlasts the open phase is looked at again when trial calls may go",
        ),
        pytest.param(
            {"pauseAfterSeconds": 500}, opened(until=1_020), 950.0,
            Goal(Step.PAUSE, "BreakerOpen", next_at=1_020), id="what is paused stays so without a second grace",
        ),
        pytest.param(
            {"maxPauseSeconds": 105}, opened(until=1_020), OPENED_S,
            Goal(Step.PAUSE, "BreakerOpen", next_at=1_005), id="the end of the longest pause is not slept through",
        ),
        pytest.param(
            {"maxPauseSeconds": 60}, opened(until=1_100), None,
            Goal(Step.PAUSE, "BreakerOpen", next_at=1_060), id="nor is it when the pause only begins",
        ),
    ],
)  # fmt: skip
def test_while_the_breaker_is_open(
    fields: dict[str, Any], seen: ScopeSnapshot, paused_at: float | None, expected: Goal
) -> None:
    assert goals.goal(spec(**fields), seen, paused_at) == expected


def test_the_grace_counts_from_the_beginning_of_the_outage_and_not_from_the_latest_opening() -> None:
    again = Open("timeout", opened_at=OPENED_S, until=1_200.0, trips=2)
    seen = snapshot(again, since=999.0)
    assert goals.goal(spec(pauseAfterSeconds=50), seen, None).step is Step.PAUSE


# -- the goal: the longest pause ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", [opened(), half_open()], ids=["open", "half-open"])
def test_after_the_longest_pause_workloads_come_back_and_stay_for_this_outage(seen: ScopeSnapshot) -> None:
    goal = goals.goal(spec(maxPauseSeconds=100, resume={"strategy": "Immediate"}), seen, OPENED_S)
    assert goal == Goal(Step.RESUME, "MaxPause", share=1.0, release=OUTAGE)


def test_after_the_longest_pause_they_come_back_in_steps_too() -> None:
    goal = goals.goal(spec(maxPauseSeconds=80), opened(), OPENED_S)
    assert goal == Goal(Step.RESUME, "MaxPause", share=0.5, release=OUTAGE, next_at=1_010.0)


def test_a_moment_before_it_is_over_the_pause_holds() -> None:
    assert goals.goal(spec(maxPauseSeconds=100.1), opened(), OPENED_S).step is Step.PAUSE


def test_a_breaker_that_closed_meanwhile_releases_nobody() -> None:
    assert goals.goal(spec(maxPauseSeconds=60), closed(990.0), OPENED_S).release == ""


# -- the goal: the breaker is half-open -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "paused_at", "expected"),
    [
        pytest.param({}, OPENED_S, Goal(Step.CANARY, "BreakerHalfOpen"), id="one pod makes the trial call"),
        pytest.param(
            {"resume": {"canary": False}}, OPENED_S, Goal(Step.PAUSE, "BreakerHalfOpen"), id="unless nobody wants it"
        ),
        pytest.param(
            {"minPausedSeconds": 101}, OPENED_S,
            Goal(Step.PAUSE, "BreakerHalfOpen", next_at=1_001), id="and not before the shortest pause is over",
        ),
        pytest.param(
            {"minPausedSeconds": 100}, OPENED_S, Goal(Step.CANARY, "BreakerHalfOpen"), id="but then at once"
        ),
        pytest.param(
            {"maxPauseSeconds": 130}, OPENED_S,
            Goal(Step.CANARY, "BreakerHalfOpen", next_at=1_030), id="the end of the longest pause is not forgotten",
        ),
        pytest.param({}, None, Goal(Step.KEEP, "BreakerHalfOpen"), id="where nothing is paused nothing will be"),
    ],
)  # fmt: skip
def test_while_the_breaker_is_half_open(fields: dict[str, Any], paused_at: float | None, expected: Goal) -> None:
    assert goals.goal(spec(**fields), half_open(), paused_at) == expected


def test_an_open_breaker_whose_time_has_passed_is_half_open() -> None:
    assert goals.goal(spec(), opened(until=NOW_S), OPENED_S).step is Step.CANARY


# -- the goal: the breaker is closed --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "paused_at", "closed_at", "expected"),
    [
        pytest.param(
            {"minPausedSeconds": 101}, 900, 950,
            Goal(Step.KEEP, "MinPaused", next_at=1_001), id="a pause lasts its shortest time",
        ),
        pytest.param(
            {"minPausedSeconds": 100}, 900, 950,
            Goal(Step.RESUME, "BreakerClosed", 0.25, next_at=1_015), id="the first step is due when that is over",
        ),
        pytest.param(
            {}, 900, 1_000,
            Goal(Step.RESUME, "BreakerClosed", 0.25, next_at=1_015), id="or when the breaker closes",
        ),
        pytest.param(
            {}, 900, 986,
            Goal(Step.RESUME, "BreakerClosed", 0.25, next_at=1_001), id="it stands for the whole interval",
        ),
        pytest.param(
            {}, 900, 985, Goal(Step.RESUME, "BreakerClosed", 0.5, next_at=1_015), id="the second one follows it"
        ),
        pytest.param({}, 890, 955, Goal(Step.RESUME, "BreakerClosed", 1.0), id="the last one is everything"),
        pytest.param(
            {}, 935, 100,
            Goal(Step.RESUME, "BreakerClosed", 0.25, next_at=1_010), id="being late is no reason to skip steps",
        ),
        pytest.param(
            {"resume": {"stepPercent": 40, "intervalSeconds": 10}}, 900, 980,
            Goal(Step.RESUME, "BreakerClosed", 1.0), id="never more than everything",
        ),
        pytest.param(
            {"resume": {"stepPercent": 100}}, 900, 1_000,
            Goal(Step.RESUME, "BreakerClosed", 1.0), id="one step of all",
        ),
        pytest.param(
            {"resume": {"strategy": "Immediate", "stepPercent": 1}}, 900, 1_000,
            Goal(Step.RESUME, "BreakerClosed", 1.0), id="immediate knows no steps",
        ),
    ],
)  # fmt: skip
def test_once_the_breaker_is_closed(
    fields: dict[str, Any], paused_at: float, closed_at: float, expected: Goal
) -> None:
    assert goals.goal(spec(**fields), closed(closed_at), paused_at) == expected


def test_with_nothing_paused_a_closed_breaker_asks_for_no_look_at_any_time() -> None:
    assert goals.goal(spec(), closed(), None) == ALL_BACK


# -- the goal: the state is unknown ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last_known_at", "expected"),
    [
        pytest.param(101, Goal(Step.KEEP, "StateUnknown", next_at=1_001), id="a pause is kept"),
        pytest.param(
            100, Goal(Step.RESUME, "StateUnknown", 0.25, next_at=1_015), id="but a dead Redis strands nobody"
        ),
        pytest.param(85, Goal(Step.RESUME, "StateUnknown", 0.5, next_at=1_015), id="they come back in steps"),
        pytest.param(0, Goal(Step.RESUME, "StateUnknown", 1.0), id="until all are there"),
    ],
)
def test_while_the_state_is_unknown(last_known_at: float, expected: Goal) -> None:
    assert goals.goal(spec(maxUnknownSeconds=900), unknown(last_known_at), OPENED_S) == expected


@pytest.mark.parametrize("last_known_at", [0.0, 999.0])
def test_while_the_state_is_unknown_nothing_new_is_paused(last_known_at: float) -> None:
    seen = unknown(last_known_at, record=SharedState(Open("timeout", OPENED_S, 1_020.0)))
    assert goals.goal(spec(), seen, None) == Goal(Step.KEEP, "StateUnknown")


def test_a_last_known_closed_state_is_still_unknown() -> None:
    seen = unknown(999.0, record=SharedState(Closed()))
    assert goals.goal(spec(), seen, OPENED_S).step is Step.KEEP


# -- the goal: only health checks have closed the breaker ------------------------------------------------------------


def on_probation(since: float) -> ScopeSnapshot:
    return snapshot(Closed(since=since, on_probation=True), since=since)


@pytest.mark.parametrize(
    ("resume", "since", "expected"),
    [
        pytest.param(
            {"canaryTimeoutSeconds": 30}, 980.0, Goal(Step.CANARY, "Probation", next_at=1_010),
            id="the canary has to make a good call first",
        ),
        pytest.param(
            {"canaryTimeoutSeconds": 30, "stepPercent": 25, "intervalSeconds": 10}, 970.0,
            Goal(Step.RESUME, "BreakerClosed", share=0.25, next_at=1_010),
            id="one without work holds nobody back for ever",
        ),
        pytest.param(
            {"canary": False, "strategy": "Immediate"}, NOW_S, ALL_BACK,
            id="without a canary there is nobody to wait for",
        ),
    ],
)  # fmt: skip
def test_on_probation(resume: dict[str, Any], since: float, expected: Goal) -> None:
    assert goals.goal(spec(minPausedSeconds=0, resume=resume), on_probation(since), OPENED_S) == expected


# -- the goal: a person has decided ----------------------------------------------------------------------------------


def overridden(kind: OverrideKind, breaker: Breaker, *, since: float) -> ScopeSnapshot:
    override = Override(kind, "ann", "maintenance", until=1_500)
    return ScopeSnapshot(SharedState(breaker, override=override), NOW_S, True, last_known_at=NOW_S, since=since)


def test_forced_open_pauses_like_an_outage_that_began_then() -> None:
    seen = overridden(OverrideKind.FORCED_OPEN, Closed(), since=995.0)
    waiting = goals.goal(spec(pauseAfterSeconds=10), seen, None)
    assert waiting == Goal(Step.KEEP, "BreakerOpen", next_at=1_005)
    assert goals.goal(spec(pauseAfterSeconds=5), seen, None) == Goal(Step.PAUSE, "BreakerOpen", next_at=1_500)
    assert seen.outage == f"default/{iso(1_500)}"


def test_forced_closed_brings_everything_back_though_the_breaker_is_open() -> None:
    seen = overridden(OverrideKind.FORCED_CLOSED, Open("timeout", OPENED_S, 1_020), since=NOW_S)
    resumed = goals.goal(spec(minPausedSeconds=0, resume={"strategy": "Immediate"}), seen, OPENED_S)
    assert resumed == ALL_BACK
    assert seen.outage == ""


# -- the goal: what is reason enough ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "pause_on", "expected"),
    [
        pytest.param("timeout", ["BreakerOpen"], Step.PAUSE, id="any reason"),
        pytest.param("timeout", ["Outage"], Step.PAUSE, id="an outage, as asked"),
        pytest.param("service_unavailable", ["Outage"], Step.PAUSE, id="of whatever kind"),
        pytest.param("timeout", ["CreditsExhausted"], Step.RESUME, id="an outage, not asked for"),
        pytest.param("credits_exhausted", ["Outage", "RateLimited"], Step.RESUME, id="no credits, not asked for"),
        pytest.param("credits_exhausted", ["CreditsExhausted"], Step.PAUSE, id="no credits"),
        pytest.param("api_key_invalid", ["KeyInvalid"], Step.PAUSE, id="a bad key"),
    ],
)
def test_it_pauses_for_the_reasons_that_are_asked_for(reason: str, pause_on: list[str], expected: Step) -> None:
    seen = snapshot(Open(reason, OPENED_S, 1_020.0), since=OPENED_S)
    assert goals.goal(spec(pauseOn=pause_on), seen, None).step is expected


def test_one_who_forces_it_open_always_pauses() -> None:
    seen = overridden(OverrideKind.FORCED_OPEN, Closed(), since=900.0)
    assert goals.goal(spec(pauseOn=["KeyInvalid"]), seen, None).step is Step.PAUSE


@pytest.mark.parametrize(
    ("left_s", "paused_at", "expected"),
    [
        pytest.param(299, None, ALL_BACK, id="one that is nearly over pauses nothing"),
        pytest.param(300, None, Goal(Step.PAUSE, "RateLimited", next_at=1_300), id="one that lasts pauses"),
        pytest.param(1, 900, Goal(Step.PAUSE, "RateLimited", next_at=1_001), id="to its end"),
        pytest.param(0, 900, Goal(Step.RESUME, "BreakerClosed", 0.25, next_at=1_015), id="and no longer"),
    ],
)
def test_while_calls_are_rate_limited(left_s: float, paused_at: float | None, expected: Goal) -> None:
    seen = snapshot(Closed(since=NOW_S), since=NOW_S, rate_limit_reset_at=NOW_S + left_s)
    assert goals.goal(spec(pauseOn=["BreakerOpen", "RateLimited"]), seen, paused_at) == expected


def test_a_rate_limit_is_no_reason_unless_it_is_asked_for() -> None:
    seen = snapshot(Closed(), rate_limit_reset_at=NOW_S + 3_600)
    assert goals.goal(spec(), seen, None).step is Step.RESUME


def test_a_rate_limit_that_outlasts_the_longest_pause_lets_go_and_is_remembered() -> None:
    seen = snapshot(Closed(), rate_limit_reset_at=NOW_S + 3_600)
    asked = spec(pauseOn=["RateLimited"], maxPauseSeconds=60, resume={"strategy": "Immediate"})
    goal = goals.goal(asked, seen, OPENED_S)
    assert (goal.step, goal.reason, goal.release) == (Step.RESUME, "MaxPause", seen.outage)
    assert seen.outage


# -- the goal: the breaker closes and opens, again and again ---------------------------------------------------------


def closings(*at: float) -> ScopeSnapshot:
    moves = tuple(
        Transition(n, BreakerState.HALF_OPEN, BreakerState.CLOSED, "trial_succeeded", "w", s)
        for n, s in enumerate(at)
    )
    record = SharedState(Closed(since=at[-1]), transitions=moves)
    return ScopeSnapshot(record, NOW_S * 10, is_fresh=True, last_known_at=NOW_S * 10, since=at[-1])


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(closings(9_000, 9_990), Step.RESUME, id="twice in an hour is bad luck"),
        pytest.param(closings(7_000, 9_000, 9_990), Step.CANARY, id="three times is a pattern: only the canary runs"),
        pytest.param(closings(6_000, 9_000, 9_500), Step.RESUME, id="an hour after the first it is forgotten"),
    ],
)
def test_a_breaker_that_flaps_is_not_trusted(seen: ScopeSnapshot, expected: Step) -> None:
    goal = goals.goal(spec(minPausedSeconds=0), seen, 9_000)
    assert (goal.step, goal.reason == "Flapping") == (expected, expected is Step.CANARY)


def by_people(seen: ScopeSnapshot) -> ScopeSnapshot:
    """The same closings, made by people who forced the breaker."""
    assert seen.record is not None
    moves = tuple(replace(move, reason=OverrideKind.FORCED_CLOSED.value) for move in seen.record.transitions)
    return replace(seen, record=replace(seen.record, transitions=moves))


def decided(seen: ScopeSnapshot, kind: OverrideKind, breaker: Breaker | None = None) -> ScopeSnapshot:
    """The same while a person's decision stands."""
    assert seen.record is not None
    override = Override(kind, "ann", "it works again", seen.now + 600)
    return replace(seen, record=replace(seen.record, override=override, breaker=breaker or seen.record.breaker))


FLAPPED = closings(7_000, 9_000, 9_990)
ON_PROBATION = Closed(since=9_990, on_probation=True)


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param(decided(by_people(FLAPPED), OverrideKind.FORCED_CLOSED), id="who toggled it"),
        pytest.param(decided(FLAPPED, OverrideKind.FORCED_CLOSED), id="though the breaker flaps"),
        pytest.param(decided(FLAPPED, OverrideKind.DISABLED), id="who has switched it off"),
        pytest.param(decided(closings(9_990), OverrideKind.FORCED_CLOSED, ON_PROBATION), id="though on probation"),
    ],
)
def test_a_person_who_lets_calls_go_is_obeyed_at_once(seen: ScopeSnapshot) -> None:
    goal = goals.goal(spec(minPausedSeconds=0, resume={"strategy": "Immediate"}), seen, 9_000)
    assert (goal.step, goal.share, goal.reason) == (Step.RESUME, 1.0, "BreakerClosed")


def test_what_people_toggled_before_is_no_flapping_later() -> None:
    assert goals.goal(spec(minPausedSeconds=0), by_people(FLAPPED), 9_000).step is Step.RESUME


@pytest.mark.parametrize(
    ("flapping", "expected"),
    [
        pytest.param({"closings": 4}, Step.RESUME, id="three are not four"),
        pytest.param({"closings": 2}, Step.CANARY, id="three are more than two"),
        pytest.param({"withinSeconds": 2_000}, Step.RESUME, id="not within so short a time"),
    ],
)
def test_how_often_is_too_often_is_the_specs_to_say(flapping: dict[str, int], expected: Step) -> None:
    assert goals.goal(spec(minPausedSeconds=0, resume={"flapping": flapping}), FLAPPED, 9_000).step is expected


def test_what_flaps_is_looked_at_again_when_the_hour_is_over() -> None:
    assert goals.goal(spec(minPausedSeconds=0), closings(7_000, 9_000, 9_990), 9_000).next_at == 10_600


# -- the goal: a clock that was set back -----------------------------------------------------------------------------

TOMORROW_S = NOW_S + 86_400


@pytest.mark.parametrize(
    ("fields", "seen", "expected"),
    [
        pytest.param({"minPausedSeconds": 600}, closed(990.0), Step.RESUME, id="the shortest pause is over"),
        pytest.param({"minPausedSeconds": 600}, half_open(), Step.CANARY, id="and the canary may run"),
        pytest.param({"maxPauseSeconds": 600}, opened(), Step.RESUME, id="so is the longest"),
        pytest.param({}, opened(), Step.PAUSE, id="but an outage is still one"),
    ],
)
def test_a_pause_that_began_tomorrow_has_lasted_for_long_enough(
    fields: dict[str, Any], seen: ScopeSnapshot, expected: Step
) -> None:
    assert goals.goal(spec(**fields), seen, TOMORROW_S).step is expected


def test_a_clock_that_is_a_moment_behind_ends_no_pause() -> None:
    goal = goals.goal(spec(minPausedSeconds=60), closed(), NOW_S + 30)
    assert goal == Goal(Step.KEEP, "MinPaused", next_at=NOW_S + 90)


def test_an_outage_that_began_tomorrow_pauses_at_once() -> None:
    assert (
        goals.goal(spec(pauseAfterSeconds=600), opened(TOMORROW_S, until=TOMORROW_S + 120), None).step is Step.PAUSE
    )


def test_the_steps_of_a_breaker_that_closed_tomorrow_do_not_wait_for_it() -> None:
    assert goals.goal(spec(minPausedSeconds=0), closed(TOMORROW_S), OPENED_S).share == 1.0


def test_a_breaker_that_closed_three_times_tomorrow_does_not_flap() -> None:
    flapping = closings(TOMORROW_S, TOMORROW_S + 60, TOMORROW_S + 120)
    assert goals.goal(spec(minPausedSeconds=0), flapping, 9_000).reason == "BreakerClosed"
