"""Changes to a workload at 0: leave it there, or restore another number."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from openrouter_operator.decisions import plan
from openrouter_operator.decisions.goal import Goal, Step
from openrouter_operator.decisions.summary import summary
from openrouter_operator.decisions.targets import Candidate, Skip, Targets, skip
from openrouter_operator.workloads.kinds import BY_NAME, DEPLOYMENT
from openrouter_operator.workloads.workload import (
    PAUSED,
    RELEASED,
    RESUME_TO,
    Change,
    Pause,
    Workload,
    forgets,
    restored,
)
from tests.controlplane import ControlPlane
from tests.operator import foreign
from tests.operator.conftest import Fleet, Operator
from tests.operator.samples import OWNER, candidates, closed, opened, paused, workload
from tests.waiting import until

ALL_BACK = Goal(Step.RESUME, "BreakerClosed", share=1.0)
HALF_BACK = Goal(Step.RESUME, "BreakerClosed", share=0.5)
CANARY = Goal(Step.CANARY, "BreakerHalfOpen")
PAUSE = Goal(Step.PAUSE, "BreakerOpen")


def changes(goal: Goal, *found: Workload | Candidate) -> list[Change]:
    return list(
        plan.changes(goal, opened() if goal.step is Step.PAUSE else closed(), Targets(OWNER, candidates(*found)))
    )


# -- the annotation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "pods"), [("0", 0), ("1", 1), ("5", 5), ("", 3), ("some", 3), ("-1", 3), ("1" * 10, 3), ("\u0665", 3)]
)
def test_it_comes_back_with_the_pods_that_its_owner_asks_for(asked: str, pods: int) -> None:
    found = paused(original=3, resume_to=asked)
    remembered = replace(found, pause=replace(found.pause or pytest.fail("it is paused"), original=max(pods, 3)))
    (change,) = changes(ALL_BACK, remembered)
    assert (change.value, change.pause, change.pods) == (pods if asked in ("0", "1", "5") else 3, None, pods)
    assert restored(remembered) == change


def test_the_word_is_taken_away_with_the_pause_once_it_has_been_heard() -> None:
    (heard,) = changes(ALL_BACK, paused(resume_to="0"))
    assert heard.patch()["metadata"]["annotations"] == {PAUSED: None, RELEASED: None, RESUME_TO: None}
    (unread,) = changes(ALL_BACK, paused(resume_to="some"))
    assert RESUME_TO not in unread.patch()["metadata"]["annotations"]


def test_more_pods_than_there_were_are_remembered_first_since_the_admission_policy_asks_for_it() -> None:
    found = paused(original=3, resume_to="5")
    (first,) = changes(PAUSE, found)
    assert first.pause
    assert (first.pause.original, first.is_written) == (5, False)
    assert changes(PAUSE, replace(found, pause=first.pause)) == []


def test_what_is_to_stay_is_left_as_it_is() -> None:
    cron_job = replace(paused(resume_to="Stay"), kind=BY_NAME["CronJob"], value=True)
    cron_job = replace(cron_job, pause=Pause(OWNER.uid, OWNER.name, 7, original=False, set_to=True, at=900.0))
    assert changes(ALL_BACK, cron_job) == [forgets(cron_job)]
    (zero,) = changes(ALL_BACK, replace(cron_job, resume_to="0"))
    assert (zero.value, zero.pause) == (True, None)
    (unread,) = changes(ALL_BACK, replace(cron_job, resume_to="5"))
    assert unread.value is False, "a CronJob has no 5 pods"


def test_what_stays_down_takes_no_part_in_canary_and_steps() -> None:
    down, other = paused("a", original=4, resume_to="0"), paused("b", original=4)
    assert [(c.workload.name, c.value) for c in changes(CANARY, down, other)] == [("b", 1)]
    assert [(c.workload.name, c.value) for c in changes(HALF_BACK, down, other)] == [("b", 2)]


def test_what_cannot_be_read_is_a_problem_that_names_it() -> None:
    (problem,) = summary(Targets(OWNER, candidates(paused("a", resume_to="five"))), "", {}).problems
    assert (problem.target, problem.reason) == ("Deployment/a", "ResumeUnclear")
    assert "openrouter-guard.io/resume-to is 'five': write a number of pods or 'stay'" in problem.message


# -- kubectl scale --------------------------------------------------------------------------------------------------

REPLICAS: dict[str, Any] = {"f:spec": {"f:replicas": {}}}
NOTE: dict[str, Any] = {"f:metadata": {"f:annotations": {f"f:{PAUSED}": {}}}}


@pytest.mark.parametrize(
    ("entries", "is_kept"),
    [
        pytest.param([({**REPLICAS, **NOTE}, "2026-01-01T00:00:00Z")], False, id="we wrote it last"),
        pytest.param([(REPLICAS, None), (NOTE, "2026-01-01T00:00:00Z")], True, id="scaled to the same once"),
        pytest.param([(NOTE, "2026-01-01T00:00:00Z")], True, id="scaled to the same twice"),
        pytest.param([], False, id="nobody keeps books"),
    ],
)
@pytest.mark.parametrize("set_to", [0, 1])
def test_who_scales_to_0_what_is_at_0_is_known_by_the_fields_that_we_no_longer_manage(
    entries: list[tuple[dict[str, Any], str | None]], is_kept: bool, set_to: int
) -> None:
    pause = replace(paused(set_to=set_to).pause or pytest.fail("it is paused"), uid="u")
    managed = [{"manager": "openrouter-guard", "fieldsV1": f} | ({"time": at} if at else {}) for f, at in entries]
    metadata = {"namespace": "jobs", "name": "a", "uid": "u", "resourceVersion": "2", "managedFields": managed} | {
        "annotations": {PAUSED: pause.text()}
    }
    found = Workload.of(DEPLOYMENT, {"metadata": metadata, "spec": {"replicas": set_to}})
    assert found.is_kept == (is_kept and set_to == 0)
    assert found.is_as_we_set_it == (not found.is_kept)


def test_what_somebody_keeps_at_0_is_let_go_of_and_stays_there() -> None:
    kept = paused(is_kept=True)
    assert changes(PAUSE, kept) == [forgets(kept, released=opened().outage)]
    assert changes(ALL_BACK, kept) == [forgets(kept)]
    assert restored(kept) == forgets(kept)


# -- Argo -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ({"kind": "Deployment", "name": "a", "scaleDown": "onsuccess"}, ("Deployment", "a")),
        ({"kind": "Deployment", "name": "a", "scaleDown": "progressively"}, ("Deployment", "a")),
        ({"kind": "Deployment", "name": "a", "scaleDown": "never"}, None),
        ({"kind": "Deployment", "name": "a"}, None),
        ("odd", None),
    ],
)
def test_a_rollout_empties_the_workload_that_it_has_taken_over(reference: Any, expected: Any) -> None:
    metadata = {"namespace": "jobs", "name": "r", "uid": "u", "resourceVersion": "2"}
    found = Workload.of(DEPLOYMENT, {"metadata": metadata, "spec": {"workloadRef": reference}})
    assert found.empties == expected


def test_what_a_rollout_empties_is_left_alone_and_let_go_of_at_0() -> None:
    running = Candidate(workload(), is_rollouts=True)
    found = skip(running, OWNER, "")
    assert isinstance(found, Skip)
    assert found.reason == "ScaledByRollout"
    down = Candidate(paused(), is_rollouts=True)
    for goal in (PAUSE, CANARY, ALL_BACK):
        assert changes(goal, down) == [forgets(paused())]


# -- on a real API server -------------------------------------------------------------------------------------------


@pytest.fixture
def outage(fleet: Fleet, operator: Operator) -> Fleet:
    """Of four Deployments, all at 0."""
    fleet.deploy(scaled=3, noted=3, more=3, plain=3)
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(scaled=0, noted=0, more=0, plain=0)
    return fleet


@pytest.mark.cluster
def test_who_says_so_during_a_pause_finds_it_at_0_or_at_another_number(outage: Fleet) -> None:
    outage.scale("scaled", 0)
    until(lambda: PAUSED not in outage.deployments()["scaled"]["metadata"]["annotations"])
    outage.kubectl("annotate", "deployment/noted", f"{RESUME_TO}=0")
    outage.kubectl("annotate", "deployment/more", f"{RESUME_TO}=5")
    outage.force("forced_closed")
    outage.until_replicas(scaled=0, noted=0, more=5, plain=3)
    left = [name for name, item in outage.deployments().items() if RESUME_TO in item["metadata"]["annotations"]]
    assert left == []


@pytest.mark.cluster
def test_what_argo_takes_over_during_a_pause_stays_at_0(
    fleet: Fleet, start: Any, control_plane: ControlPlane
) -> None:
    foreign.install(control_plane)
    start(OPENROUTER_GUARD_KINDS="Deployment,rollouts.argoproj.io")
    fleet.deploy(taken=3, plain=3)
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(taken=0, plain=0)
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "taken", "scaleDown": "onsuccess"}
    fleet.apply(foreign.rollout("argos", replicas=3, workloadRef=reference))
    until(lambda: [p["reason"] for p in fleet.status()["problems"]] == ["ScaledByRollout"])
    fleet.force("forced_closed")
    fleet.until_replicas(taken=0, plain=3)
    assert PAUSED not in json.dumps(fleet.deployments()["taken"]["metadata"].get("annotations"))
