"""The remaining steps to the goal, workload by workload; the outage began at 900 s on the Redis clock."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openrouter_guard.rules.breaker import BreakerState, Closed, HalfOpen, Open
from openrouter_guard.rules.codec import iso
from openrouter_guard.rules.shared_state import Transition
from openrouter_operator.decisions import goal as goals
from openrouter_operator.decisions import plan
from openrouter_operator.decisions.goal import Goal, Step
from openrouter_operator.decisions.snapshot import ScopeSnapshot
from openrouter_operator.decisions.targets import Candidate, Owner, Targets, paused_since
from openrouter_operator.decisions.targets import skip as skip_of
from openrouter_operator.workloads.workload import Change, Workload, forgets, restored
from tests.operator.samples import (
    NOW_S,
    OPENED_S,
    OTHER,
    OWNER,
    candidates,
    closed,
    half_open,
    opened,
    paused,
    snapshot,
    spec,
    unknown,
    workload,
)

OUTAGE = f"default/{iso(OPENED_S)}"
PAUSE = Goal(Step.PAUSE, "BreakerOpen")
CANARY = Goal(Step.CANARY, "BreakerHalfOpen")
KEEP = Goal(Step.KEEP, "MinPaused")
ALL_BACK = Goal(Step.RESUME, "BreakerClosed", share=1.0)


def share(part: float) -> Goal:
    return Goal(Step.RESUME, "BreakerClosed", share=part)


# -- the changes: pausing -------------------------------------------------------------------------------------------


def made(goal: Goal, *found: Workload | Candidate, seen: ScopeSnapshot | None = None) -> dict[str, Change]:
    """The changes by the workload's name."""
    changes = plan.changes(goal, seen or opened(), Targets(OWNER, candidates(*found)))
    assert len({change.workload.name for change in changes}) == len(changes)
    return {change.workload.name: change for change in changes}


def replicas(goal: Goal, *found: Workload | Candidate, seen: ScopeSnapshot | None = None) -> dict[str, int | None]:
    return {name: change.pods for name, change in made(goal, *found, seen=seen).items()}


def test_a_paused_workload_remembers_what_it_was_and_who_paused_it() -> None:
    change = made(PAUSE, workload(replicas=7))["a"]
    assert (change.pods, change.released) == (0, "")
    assert change.pause is not None
    pause = change.pause
    assert (pause.owner_uid, pause.owner, pause.epoch) == (OWNER.uid, OWNER.name, 7)
    assert (pause.original, pause.set_to, pause.at) == (7, 0, NOW_S)


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(workload(replicas=0), id="one that was at zero before"),
        pytest.param(paused(), id="one that is paused already"),
        pytest.param(paused(owner=OTHER), id="one that another resource has paused"),
        pytest.param(workload(is_controlled=True), id="one whose owner would put it back"),
        pytest.param(workload(is_going=True), id="one that is being deleted"),
        pytest.param(paused(set_to=1, is_going=True), id="a canary that is being deleted"),
        pytest.param(workload(released=OUTAGE), id="one that was released in this outage"),
        pytest.param(replace(paused(), pause=None, damage="cannot be read"), id="one whose annotation is damaged"),
        pytest.param(workload(labels={"app.kubernetes.io/part-of": "openrouter-guard"}), id="our own"),
        pytest.param(Candidate(workload(), is_matched=False), id="one that the spec does not name"),
    ],
)
def test_pausing_leaves_alone(found: Workload | Candidate) -> None:
    assert made(PAUSE, found) == {}


def test_a_release_ends_with_its_outage() -> None:
    assert replicas(PAUSE, workload(released=iso(800.0))) == {"a": 0}


@pytest.mark.parametrize("goal", [PAUSE, CANARY], ids=["open", "half-open"])
def test_what_comes_to_match_during_a_pause_is_paused_too(goal: Goal) -> None:
    assert replicas(goal, paused("a", set_to=int(goal is CANARY)), workload("new")) == {"new": 0}


def test_a_canary_goal_pauses_nothing_where_nothing_is_paused() -> None:
    assert made(CANARY, workload()) == {}


def test_a_canary_goes_back_to_zero_when_the_breaker_opens_again() -> None:
    change = made(PAUSE, paused(original=3, set_to=1))["a"]
    assert change.pods == 0
    assert change.pause is not None
    assert (change.pause.original, change.pause.set_to, change.pause.at) == (3, 0, OPENED_S)


def test_keeping_is_no_change_at_all() -> None:
    found = (workload("a"), paused("b"), paused("c", replicas=9), Candidate(paused("d"), is_matched=False))
    assert made(KEEP, *found) == {}


# -- the changes: giving back ---------------------------------------------------------------------------------------


def test_everything_comes_back_at_its_original_and_forgets_its_pause() -> None:
    changes = made(ALL_BACK, paused("a", 1), paused("b", 3, set_to=1), paused("c", 7), seen=closed())
    assert {name: (c.pods, c.pause, c.released) for name, c in changes.items()} == {
        "a": (1, None, ""),
        "b": (3, None, ""),
        "c": (7, None, ""),
    }


def test_what_another_resource_has_paused_does_not_come_back() -> None:
    assert made(ALL_BACK, paused(owner=OTHER), seen=closed()) == {}


@pytest.mark.parametrize("goal", [PAUSE, CANARY, share(0.25), ALL_BACK], ids=["pause", "canary", "step", "all back"])
@pytest.mark.parametrize("live", [1, 3, 9])
def test_somebodys_own_change_stands_and_is_left_alone_in_this_outage(goal: Goal, live: int) -> None:
    change = made(goal, paused(original=3, replicas=live))["a"]
    assert (change.pods, change.pause, change.released) == (None, None, OUTAGE)


def test_somebody_who_scales_a_canary_down_to_zero_is_respected() -> None:
    change = made(CANARY, paused(set_to=1, replicas=0), seen=half_open())["a"]
    assert (change.pods, change.pause) == (None, None)


@pytest.mark.parametrize("goal", [PAUSE, CANARY, share(0.25)], ids=["pause", "canary", "step"])
def test_what_is_no_longer_matched_comes_back_whole_at_once(goal: Goal) -> None:
    assert replicas(goal, Candidate(paused("gone", 5), is_matched=False), paused("stays", 1, set_to=1))["gone"] == 5


def test_a_workload_that_is_being_deleted_is_not_touched() -> None:
    assert made(ALL_BACK, paused(is_going=True), seen=closed()) == {}


def test_what_was_paused_for_long_enough_is_left_alone_in_this_outage() -> None:
    change = made(Goal(Step.RESUME, "MaxPause", share=1.0, release=OUTAGE), paused(original=3))["a"]
    assert (change.pods, change.released) == (3, OUTAGE)


def test_a_release_is_forgotten_once_the_breaker_has_closed() -> None:
    change = made(ALL_BACK, workload(released=OUTAGE), seen=closed())["a"]
    assert (change.pods, change.pause, change.released) == (None, None, "")


def test_it_is_not_forgotten_for_another_reason() -> None:
    assert made(Goal(Step.RESUME, "StateUnknown", share=1.0), workload(released=OUTAGE)) == {}


def test_the_end_of_an_outage_of_another_scope_says_nothing() -> None:
    assert made(ALL_BACK, workload(released=f"team-a/{iso(OPENED_S)}"), seen=closed()) == {}


# -- the changes: in steps ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "originals", "expected"),
    [
        pytest.param(0.25, {"a": 4, "b": 8}, {"a": 1, "b": 2}, id="each gets its share"),
        pytest.param(0.25, {"a": 1, "b": 1, "c": 1}, {"a": 1}, id="a part of a pod is a pod, but only one in all"),
        pytest.param(0.5, {"a": 3, "b": 3}, {"a": 2, "b": 1}, id="the sum is rounded up, not each"),
        pytest.param(0.5, {"a": 3, "b": 4}, {"a": 2, "b": 2}, id="the first by name gets what is left"),
        pytest.param(0.07, {"a": 100}, {"a": 7}, id="a binary fraction does not round up a whole number"),
        pytest.param(0.29, {"a": 100}, {"a": 29}, id="nor down"),
        pytest.param(0.01, {"a": 1}, {"a": 1}, id="the smallest step moves something"),
        pytest.param(0.99, {"a": 1, "b": 200}, {"a": 1, "b": 198}, id="nobody gets more than its original"),
    ],
)
def test_a_step_brings_back(part: float, originals: dict[str, int], expected: dict[str, int]) -> None:
    found = [paused(name, original) for name, original in originals.items()]
    assert replicas(share(part), *found, seen=closed()) == expected


def test_a_step_remembers_the_original_and_when_the_pause_began() -> None:
    change = made(share(0.5), paused(original=8, at=950.0), seen=closed())["a"]
    assert change.pause is not None
    assert (change.pause.original, change.pause.set_to, change.pause.at) == (8, 4, 950.0)


def test_a_share_never_shrinks() -> None:
    # The step is 2 of 8 pods; b has had 3 since before a smaller step was asked for.
    found = (paused("a", 4), paused("b", 4, set_to=3))
    assert replicas(share(0.25), *found, seen=closed()) == {"a": 1}


def test_a_canary_stays_when_the_steps_begin() -> None:
    assert replicas(share(0.25), paused("a", 2), paused("b", 2, set_to=1), seen=closed()) == {"a": 1}


def test_a_step_that_is_reached_needs_no_change() -> None:
    assert made(share(0.5), paused("a", 4, set_to=2), seen=closed()) == {}


def scaled(name: str, original: int, **other: Any) -> Candidate:
    return Candidate(paused(name, original, **other), has_autoscaler=True)


def test_an_autoscaled_workload_comes_back_whole_after_those_that_come_back_in_part() -> None:
    found = (scaled("a", 10), paused("b", 4))
    assert replicas(share(0.25), *found, seen=closed()) == {"b": 4}
    assert replicas(share(0.5), *found, seen=closed()) == {"a": 10, "b": 4}


@pytest.mark.parametrize(("part", "expected"), [(0.25, 2), (0.5, 4), (0.75, 6)])
def test_an_autoscaled_fleet_comes_back_some_workloads_a_step(part: float, expected: int) -> None:
    fleet = [scaled(f"w{nth}", 10) for nth in range(8)]
    assert replicas(share(part), *fleet, seen=closed()) == {f"w{nth}": 10 for nth in range(expected)}


def test_one_large_autoscaled_workload_is_a_step_of_its_own() -> None:
    fleet = [scaled("a", 70), scaled("b", 10), scaled("c", 10), scaled("d", 10)]
    assert replicas(share(0.25), *fleet, seen=closed()) == {"a": 70}
    back = scaled("a", 70, set_to=70)
    assert replicas(share(0.75), back, *fleet[1:], seen=closed()) == {"b": 10}


def test_what_its_autoscaler_has_made_of_it_since_it_came_back_stands() -> None:
    back = scaled("a", 10, set_to=10, replicas=14)
    assert made(share(0.5), back, scaled("b", 10), seen=closed()) == {}
    change = made(ALL_BACK, back, seen=closed())["a"]
    assert (change.pods, change.pause) == (None, None)
    assert replicas(PAUSE, back) == {"a": 0}


# -- the changes: admission -----------------------------------------------------------------------------------------


def test_what_admission_made_of_a_pause_is_no_persons_change() -> None:
    raised = paused("a", 5, replicas=2, is_altered=True)
    assert made(PAUSE, raised) == {}
    change = made(ALL_BACK, raised, seen=closed())["a"]
    assert (change.pods, change.pause) == (5, None)
    assert restored(raised) == Change(raised, 5, pause=None)


# -- the changes: the canary ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param([paused("b"), paused("a")], {"a": 1}, id="one pod of the first by name"),
        pytest.param([paused("a"), paused("b", set_to=1)], {}, id="the one that runs stays it"),
        pytest.param(
            [paused("a", 8, set_to=4), paused("b", 8, set_to=4)], {"a": 1, "b": 0},
            id="steps taken back leave one pod in all",
        ),
        pytest.param(
            [Candidate(paused("a"), has_autoscaler=True), paused("b")], {"b": 1}, id="never an autoscaled one"
        ),
        pytest.param([Candidate(paused("a"), has_autoscaler=True)], {}, id="not even the only one"),
        pytest.param([paused("a", is_going=True), paused("b")], {"b": 1}, id="not one that is being deleted"),
        pytest.param(
            [Candidate(paused("a"), is_matched=False), paused("b")], {"a": 3, "b": 1},
            id="not one that is no longer matched: that comes back",
        ),
        pytest.param([paused("a", owner=OTHER), paused("b")], {"b": 1}, id="not another resource's"),
    ],
)  # fmt: skip
def test_the_canary_is(found: list[Workload | Candidate], expected: dict[str, int]) -> None:
    assert replicas(CANARY, *found, seen=half_open()) == expected


# -- why a workload is left alone -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "reason", "is_news"),
    [
        pytest.param(workload(), "", False, id="a running worker is not"),
        pytest.param(paused(), "", False, id="nor one that we have paused"),
        pytest.param(paused(is_going=True), "", False, id="even if it is being deleted"),
        pytest.param(paused(owner=OTHER), "PausedByOther", True, id="another resource has it"),
        pytest.param(workload(replicas=0, damage="cannot be read"), "AnnotationDamaged", True, id="damage"),
        pytest.param(workload(is_controlled=True), "ControlledByOwner", True, id="an owner controls it"),
        pytest.param(
            workload(is_controlled=True, is_keda_run=True),
            "StartedByScaledJob",
            False,
            id="a Job that KEDA has started",
        ),
        pytest.param(
            workload(labels={"app.kubernetes.io/part-of": "openrouter-guard"}), "OwnComponent", True, id="our own"
        ),
        pytest.param(workload(released=OUTAGE), "Released", True, id="released in this outage"),
        pytest.param(workload(released=iso(1.0)), "", False, id="released in an earlier one"),
        pytest.param(workload(replicas=0), "AlreadyAtZero", False, id="at zero already"),
        pytest.param(workload(is_going=True), "BeingDeleted", False, id="being deleted"),
    ],
)
def test_a_workload_is_left_alone_because(found: Workload, reason: str, *, is_news: bool) -> None:
    skip = skip_of(Candidate(found), OWNER, OUTAGE)
    assert ((skip.reason, bool(skip.message)) if skip else ("", False)) == (reason, is_news)


def test_who_has_paused_it_is_named() -> None:
    skip = skip_of(Candidate(paused(owner=OTHER)), OWNER, OUTAGE)
    assert skip is not None
    assert "OpenRouterStatus other" in skip.message


def test_outside_an_outage_no_release_counts() -> None:
    assert skip_of(Candidate(workload(released="")), OWNER, outage="") is None


# -- the beginning of a pause, and the name of an outage ------------------------------------------------------------


def test_a_pause_began_with_the_first_workload_of_ours() -> None:
    found = candidates(paused("a", at=930), paused("b", at=920), paused("c", at=10, owner=OTHER), workload("d"))
    assert paused_since(Targets(OWNER, found), opened()) == 920
    assert paused_since(Targets(OWNER, candidates(workload(), paused(owner=OTHER))), opened()) is None


def test_what_is_left_of_an_earlier_outage_ends_nobodys_pause() -> None:
    """As the annotation of an outage that is over, which an undone rollout has brought back."""
    found = candidates(paused("a", at=100), paused("b", at=930))
    closing = Transition(5, BreakerState.HALF_OPEN, BreakerState.CLOSED, "trial_succeeded", "w", 800)
    again = opened()
    assert again.record is not None
    again = replace(again, record=replace(again.record, transitions=(closing,)))
    assert paused_since(Targets(OWNER, found), again) == 800
    asked = spec(maxPauseSeconds=300)
    assert goals.goal(asked, again, paused_since(Targets(OWNER, found), again)).step is Step.PAUSE
    assert paused_since(Targets(OWNER, found), closed()) == 100, "what is on its way back counts from where it began"


def test_an_undone_annotation_in_place_of_a_pause_that_nobody_knows_ends_nobodys_pause() -> None:
    undone = paused("a", at=100, is_foreign=True, is_undone=True)
    assert paused_since(Targets(OWNER, candidates(undone, paused("b", at=930))), opened()) == 930
    known = replace(undone, pause=paused("a", at=920).pause, is_stripped=True)
    assert paused_since(Targets(OWNER, candidates(known, paused("b", at=930))), opened()) == 920


def test_a_pause_names_the_workload_that_it_is_of() -> None:
    pause = made(PAUSE, workload("a"))["a"].pause
    assert pause is not None
    assert pause.uid == "uid-of-a"


def test_what_a_workload_carries_of_a_pause_that_is_over_is_taken_away() -> None:
    littered = workload("a", has_litter=True)
    assert made(ALL_BACK, littered, seen=closed()) == {"a": forgets(littered)}
    change = made(PAUSE, littered)["a"]
    assert (change.pods, change.pause is not None) == (0, True)
    assert made(KEEP, littered) == {}


@pytest.mark.parametrize(
    ("found", "is_over"),
    [
        pytest.param(workload("a", released=OUTAGE), True, id="what the spec names"),
        pytest.param(Candidate(workload("a", released=OUTAGE), is_matched=False), True, id="what it names no longer"),
        pytest.param(workload("a", 0, released=OUTAGE), True, id="what stands at 0 by now"),
        pytest.param(workload("a", released=OUTAGE.replace("default", "other")), False, id="an outage elsewhere"),
        pytest.param(paused("a", owner=OTHER, released=OUTAGE), False, id="what another resource has paused"),
        pytest.param(workload("a", released=OUTAGE, is_controlled=True), False, id="a copy on a ReplicaSet"),
    ],
)
def test_the_mark_of_an_outage_goes_with_it_whoever_names_the_workload_by_then(
    found: Workload | Candidate, *, is_over: bool
) -> None:
    assert [change.released for change in made(ALL_BACK, found, seen=closed()).values()] == [""] * is_over
    assert made(ALL_BACK, found, seen=unknown(900.0)) == {}
    assert made(replace(ALL_BACK, reason="MaxPause"), found, seen=opened()) == {}, "it is not over"


@pytest.mark.parametrize(
    ("breaker", "expected"),
    [
        pytest.param(Closed(), "", id="closed has none"),
        pytest.param(Open("timeout", OPENED_S, 1_020), OUTAGE, id="open"),
        pytest.param(HalfOpen("timeout", OPENED_S), OUTAGE, id="half-open is the same one"),
        pytest.param(Open("error", OPENED_S, 1_200, trips=2), OUTAGE, id="and so is opening again"),
    ],
)
def test_an_outage_is_named_by_its_beginning(breaker: Closed | Open | HalfOpen, expected: str) -> None:
    assert snapshot(breaker).outage == expected


# -- left as it is when the resource goes ---------------------------------------------------------------------------


def test_what_is_orphaned_stays_paused_and_keeps_its_memory() -> None:
    (change,) = plan.orphaned(Targets(OWNER, candidates(paused("a"), workload("b"), paused("c", owner=OTHER))))
    assert (change.workload.name, change.pods) == ("a", None)
    assert change.pause is not None
    assert change.pause.is_orphaned


def test_the_next_resource_of_that_name_takes_it_over() -> None:
    left = paused()
    assert left.pause is not None
    left = replace(left, pause=replace(left.pause, is_orphaned=True))
    successor, stranger = Owner("uid-of-the-next", OWNER.name), Owner("uid-of-the-next", "stranger")
    (change,) = plan.changes(ALL_BACK, closed(), Targets(successor, candidates(left)))
    assert (change.pods, change.pause) == (3, None)
    assert plan.changes(ALL_BACK, closed(), Targets(stranger, candidates(left))) == []
    (canary,) = plan.changes(CANARY, half_open(), Targets(successor, candidates(left)))
    assert canary.pause is not None
    assert (canary.pause.owner_uid, canary.pause.is_orphaned) == (successor.uid, False)
