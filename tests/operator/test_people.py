"""Changes by people, GitOps and other controllers to paused workloads, on a real API server."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.rules.codec import parse_iso
from openrouter_operator.workloads.workload import OPT, PAUSED, RELEASED, RESUME_TO
from tests.cli.commands import run
from tests.controlplane import ControlPlane, KubectlFailed
from tests.operator.conftest import Fleet, Operator, deployment
from tests.operator.rollouts import copies, get_ready, remembered, replica_sets, revisions, roll_out, undo
from tests.waiting import until

pytestmark = pytest.mark.cluster

ONE = [{"kind": "Deployment", "name": "one"}]
ROLLED_OUT = [{"kind": "Deployment", "selector": {"matchLabels": {"fleet": "workers"}}, "pauseDuringRollout": True}]
"""Without a node no pod gets ready, and no rollout ends."""


def test_a_pause_that_gitops_undoes_is_put_back_and_the_condition_names_who_undoes_it(
    fleet: Fleet, operator: Operator
) -> None:
    fleet.deploy(one=3)
    fleet.watch(onManualChange="Enforce")
    fleet.force("forced_open")  # else a canary might come before all is seen
    fleet.until_replicas(one=0)
    manifest = json.dumps(deployment("one", 4))
    fleet.kubectl(
        "apply", "--server-side", "--force-conflicts", "--field-manager=argocd", "--filename=-", stdin=manifest
    )
    until(lambda: remembered(fleet, "one").get("contested", {}).get("by") == "argocd")
    fleet.until_replicas(one=0)
    fleet.until_condition("Ready", "False Contested")
    (problem,) = fleet.status()["problems"]
    assert "'argocd' undoes its pause, put back 1 times" in problem["message"]
    fleet.force("forced_closed")
    fleet.until_replicas(one=4)
    fleet.until_condition("Ready", "True")


def replace(fleet: Fleet, name: str, replicas: int) -> None:
    """As a tool does that knows nothing of annotations: what it does not write is gone."""

    def is_replaced() -> bool:
        with suppress(KubectlFailed):  # the controllers write at the same time
            fleet.kubectl("replace", "--filename=-", stdin=json.dumps(deployment(name, replicas)))
            return True
        return False

    until(is_replaced)


def has(fleet: Fleet, name: str, replicas: int) -> bool:
    return fleet.replicas()[name] == replicas


def is_contested(fleet: Fleet, times: int) -> bool:
    return bool(remembered(fleet, "one").get("contested", {}).get("times") == times)


def test_a_paused_workload_that_somebody_replaces_is_theirs_until_the_outage_is_over(
    fleet: Fleet, operator: Operator
) -> None:
    fleet.deploy(one=3)
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    for replicas in (4, 5):
        replace(fleet, "one", replicas)
        fleet.deploy(**{f"late-{replicas}": 1})
        until(partial(has, fleet, f"late-{replicas}", 0))
        until(lambda: [p["reason"] for p in fleet.status()["problems"]] == ["Released"])
        assert fleet.replicas()["one"] == replicas
    fleet.force("forced_closed")
    fleet.until_replicas(one=5, **{"late-4": 1, "late-5": 1})
    fleet.force("forced_open")
    fleet.until_replicas(one=0, **{"late-4": 0, "late-5": 0})


def test_a_pause_that_somebody_undoes_by_replacing_is_put_back_ever_later(fleet: Fleet, operator: Operator) -> None:
    fleet.deploy(one=3)
    fleet.watch(onManualChange="Enforce")
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    fights = []
    for times in (1, 2):
        replace(fleet, "one", 4)
        until(partial(is_contested, fleet, times))
        fleet.until_replicas(one=0)
        fights.append(remembered(fleet, "one")["contested"])
    assert parse_iso(fights[1]["at"]) - parse_iso(fights[0]["at"]) >= 5
    assert fights[1]["by"] == "kubectl-replace"
    fleet.force("forced_closed")
    fleet.until_replicas(one=4)


def test_an_annotation_that_somebody_takes_away_comes_back_and_so_does_the_workload(
    fleet: Fleet, operator: Operator
) -> None:
    fleet.deploy(one=3)
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    fleet.until_condition("Paused", "True")
    replace(fleet, "one", 0)
    until(lambda: remembered(fleet, "one").get("original") == 3)
    replace(fleet, "one", 0)
    fleet.force("forced_closed")
    fleet.until_replicas(one=3)


def test_neither_a_damaged_annotation_nor_many_writers_leave_a_workload_at_0(
    fleet: Fleet, operator: Operator
) -> None:
    fleet.deploy(damaged=3, busy=2)
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(damaged=0, busy=0)
    for nth in range(11):  # of more than ten, the API server merges the oldest, ours, and drops their names
        fleet.kubectl("annotate", "deployment/busy", f"note-{nth}=1", f"--field-manager=tool-{nth}")
    assert "ancient-changes" in owners(fleet, name="busy")
    fleet.kubectl("annotate", "deployment/damaged", f"{PAUSED}=no JSON", "--overwrite")
    until(lambda: PAUSED in fleet.deployments()["damaged"]["metadata"]["annotations"])
    until(lambda: fleet.deployments()["damaged"]["metadata"]["annotations"][PAUSED] != "no JSON")
    assert fleet.status()["targets"]["paused"] == 2
    fleet.kubectl("annotate", "deployment/damaged", f"{PAUSED}=no JSON", "--overwrite")
    fleet.force("forced_closed")
    fleet.until_replicas(damaged=3, busy=2)
    fleet.until_condition("Ready", "True")


def test_an_orphaned_pause_outlives_its_resource_and_the_next_of_its_name_takes_it_over(
    fleet: Fleet, operator: Operator
) -> None:
    fleet.deploy(one=3)
    fleet.watch(deletionPolicy="Orphan")
    fleet.fail()
    fleet.until_replicas(one=0)
    fleet.unwatch("default", "--timeout=15s")
    assert remembered(fleet, "one")["orphaned"] is True
    operator.restart()
    fleet.watch(name="another")
    assert fleet.replicas() == {"one": 0}
    assert fleet.status("another")["problems"][0]["reason"] == "PausedByOther"
    fleet.unwatch("another", "--timeout=15s")
    fleet.watch()
    fleet.until_phase(BreakerState.HALF_OPEN)
    fleet.succeed()
    fleet.until_replicas(one=3)


def test_a_dry_run_changes_nothing_and_says_what_it_would(fleet: Fleet, operator: Operator) -> None:
    fleet.deploy(one=3)
    fleet.watch(dryRun=True)
    fleet.fail()
    until(lambda: fleet.status().get("wouldChange") == ["Deployment/one: from 3 to 0"])
    fleet.until_condition("Ready", "True DryRun")
    assert fleet.replicas() == {"one": 3}
    assert remembered(fleet, "one") == {}


def test_of_two_resources_that_match_a_workload_the_older_has_it_and_the_younger_says_so(
    fleet: Fleet, operator: Operator
) -> None:
    fleet.deploy(one=3)
    fleet.watch(name="first", targets=ONE, pauseAfterSeconds=3600)
    fleet.watch(name="second", targets=ONE)
    fleet.fail()
    until(lambda: [p["reason"] for p in fleet.status("second")["problems"]] == ["MatchedByOther"])
    assert "OpenRouterStatus first" in fleet.status("second")["problems"][0]["message"]
    assert fleet.replicas() == {"one": 3}
    fleet.unwatch("first", "--timeout=15s")
    fleet.until_replicas(one=0)


@pytest.mark.parametrize("pods", [5, 0])
def test_a_resource_takes_its_marks_with_it_and_leaves_what_people_have_set(
    fleet: Fleet, operator: Operator, pods: int
) -> None:
    fleet.deploy(one=3, two=2)
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(one=0, two=0)
    fleet.scale("one", pods)
    until(lambda: RELEASED in (fleet.deployments()["one"]["metadata"].get("annotations") or {}))
    fleet.unwatch()
    fleet.until_replicas(one=pods, two=2)
    until(
        lambda: (
            "openrouter-guard.io/"
            not in json.dumps([body["metadata"].get("annotations") for body in fleet.deployments().values()])
        )
    )


# -- a rollout that is undone ---------------------------------------------------------------------------------------


def an_earlier_outage_is_over(fleet: Fleet, **replicas: int) -> str:
    """What ``one`` remembered of it, as its ReplicaSet still does until the operator has cleared that."""
    fleet.force("forced_open")
    fleet.until_replicas(**dict.fromkeys(replicas, 0))
    note = json.dumps(remembered(fleet, "one"))
    fleet.force("forced_closed")
    fleet.until_replicas(**replicas)
    until(lambda: not copies(fleet))
    return note


def test_an_undone_rollout_brings_back_neither_an_old_number_nor_an_old_pause(
    fleet: Fleet, operator: Operator
) -> None:
    fleet.deploy(one=3, two=2)
    fleet.watch(maxPauseSeconds=3600)
    note = an_earlier_outage_is_over(fleet, one=3, two=2)
    first = roll_out(fleet)
    fleet.scale("one", 10)
    fleet.force("forced_open")
    fleet.until_replicas(one=0, two=0)
    now = remembered(fleet, "one")
    undo(fleet, first, note)
    until(lambda: remembered(fleet, "one") == now)
    assert fleet.replicas() == {"one": 0, "two": 0}
    fleet.force("forced_closed")
    fleet.until_replicas(one=10, two=2)
    until(lambda: not remembered(fleet, "one"))


@pytest.mark.parametrize("by", ["an operator that has just started", "rescue"])
@pytest.mark.parametrize("is_clean", [False, True], ids=["with an old annotation", "without any"])
def test_an_undone_rollout_misleads_nobody_who_comes_later(
    fleet: Fleet, operator: Operator, control_plane: ControlPlane, by: str, *, is_clean: bool
) -> None:
    fleet.deploy(one=3)
    fleet.watch()
    note = an_earlier_outage_is_over(fleet, one=3)
    first = roll_out(fleet)
    fleet.scale("one", 10)
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    until(lambda: copies(fleet))
    operator.kill()
    if is_clean:
        fleet.kubectl("rollout", "undo", "deployment/one")
        assert not remembered(fleet, "one")
    else:
        undo(fleet, first, note)
    if by == "rescue":
        done = run("rescue", "--namespace", fleet.namespace, KUBECONFIG=str(control_plane.kubeconfig))
        assert (done.returncode, done.stderr) == (0, "")
    else:
        fleet.force("forced_closed")
        operator.restart()
    fleet.until_replicas(one=10)


def test_a_rollout_that_is_undone_in_peace_pauses_nothing(fleet: Fleet, operator: Operator) -> None:
    fleet.deploy(one=3)
    fleet.watch()
    note = an_earlier_outage_is_over(fleet, one=3)
    first = roll_out(fleet)
    fleet.scale("one", 0)
    until(lambda: fleet.status()["targets"]["skipped"] == 1)
    undo(fleet, first, note)
    until(lambda: not remembered(fleet, "one"))
    assert fleet.replicas() == {"one": 0}


def test_what_was_said_of_the_end_of_one_pause_says_nothing_of_the_next(fleet: Fleet, operator: Operator) -> None:
    """A ReplicaSet keeps a word that was taken from its Deployment, and an undone rollout brings it back."""
    fleet.deploy(one=3)
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    fleet.kubectl("annotate", "deployment/one", f"{RESUME_TO}=2")
    until(lambda: handed_down(fleet, RESUME_TO) == ["2"])
    fleet.force("forced_closed")
    fleet.until_replicas(one=2)
    until(lambda: not handed_down(fleet, RESUME_TO))
    fleet.scale("one", 3)
    roll_out(fleet)
    fleet.kubectl("rollout", "undo", "deployment/one")
    assert RESUME_TO not in (fleet.deployments()["one"]["metadata"].get("annotations") or {})


def handed_down(fleet: Fleet, annotation: str) -> list[str]:
    notes = (item["metadata"].get("annotations") or {} for item in replica_sets(fleet))
    return [found[annotation] for found in notes if annotation in found]


def test_what_an_owner_says_before_a_pause_stays_where_it_was_said(fleet: Fleet, operator: Operator) -> None:
    fleet.deploy(one=3, two=2)
    fleet.kubectl("annotate", "deployment/one", f"{RESUME_TO}=2", f"{OPT}=false")
    until(lambda: handed_down(fleet, RESUME_TO) == ["2"])
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(one=3, two=0)
    until(lambda: copies(fleet, "two"))
    fleet.force("forced_closed")
    until(lambda: not copies(fleet, "two"))
    assert handed_down(fleet, RESUME_TO) == ["2"], "its Deployment would only hand it down again"


# -- copies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names_its_workload", [True, False], ids=["as we write it", "as earlier operators did"])
def test_a_copy_of_a_paused_workload_is_no_paused_workload(
    fleet: Fleet, start: Any, control_plane: ControlPlane, *, names_its_workload: bool
) -> None:
    elsewhere = f"{fleet.namespace}-copy"
    control_plane.kubectl("create", "namespace", elsewhere)
    start(OPENROUTER_GUARD_NAMESPACES=f"{fleet.namespace},{elsewhere}")
    fleet.deploy(one=3)
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    copy = fleet.deployments()["one"]
    copy["metadata"] = {name: copy["metadata"][name] for name in ("name", "labels", "annotations")}
    if not names_its_workload:
        note = json.loads(copy["metadata"]["annotations"][PAUSED])
        copy["metadata"]["annotations"][PAUSED] = json.dumps({key: note[key] for key in note if key != "uid"})
    control_plane.kubectl("apply", f"--namespace={elsewhere}", "--filename=-", input=json.dumps(copy))

    def found() -> tuple[int, bool]:
        text = control_plane.kubectl("get", "deployment/one", f"--namespace={elsewhere}", "--output=json")
        body = json.loads(text)
        return body["spec"]["replicas"], PAUSED in (body["metadata"].get("annotations") or {})

    until(lambda: found() == (3, False))
    assert fleet.replicas() == {"one": 0}
    control_plane.kubectl("delete", "namespace", elsewhere, "--wait=false")


# -- tools that apply server-side -----------------------------------------------------------------------------------


def owners(fleet: Fleet, kind: str = "deployment", name: str = "one") -> list[str]:
    """Who owns fields of the workload, by the API server's books."""
    found = json.loads(fleet.kubectl("get", kind, name, "--output=json", "--show-managed-fields"))
    return [entry["manager"] for entry in found["metadata"]["managedFields"]]


def apply_as_ci(fleet: Fleet, *, image: str = "worker", replicas: int | None = 3) -> None:
    """Apply server-side, and force nothing."""
    manifest = deployment("one", 0)
    manifest["spec"]["template"]["spec"]["containers"][0]["image"] = image
    manifest["spec"] |= {"replicas": replicas}
    if replicas is None:
        del manifest["spec"]["replicas"]
    fleet.kubectl("apply", "--server-side", "--field-manager=ci", "--filename=-", stdin=json.dumps(manifest))


def test_a_tool_that_applies_server_side_is_refused_nothing(fleet: Fleet, operator: Operator) -> None:
    apply_as_ci(fleet)
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    until(lambda: "openrouter-guard" not in owners(fleet))
    apply_as_ci(fleet, image="worker:2", replicas=None)
    assert fleet.replicas() == {"one": 0}, "what does not touch the replicas may be applied during the pause"
    apply_as_ci(fleet, image="worker:3")
    until(lambda: remembered(fleet, "one").get("contested", {}).get("by") == "ci")
    assert fleet.replicas() == {"one": 0}, "it may name them too, and the pause holds"
    fleet.force("forced_closed")
    fleet.until_replicas(one=3)
    until(lambda: "openrouter-guard" not in owners(fleet))
    apply_as_ci(fleet, image="worker:3")
    apply_as_ci(fleet, image="worker:3", replicas=5)
    assert fleet.replicas() == {"one": 5}


def test_fields_of_what_an_operator_restored_before_it_died_are_given_back(fleet: Fleet, operator: Operator) -> None:
    apply_as_ci(fleet)
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    fleet.force("forced_closed")
    fleet.until_replicas(one=3)
    operator.restart()
    until(lambda: "openrouter-guard" not in owners(fleet))


def test_rescue_gives_fields_back_too(fleet: Fleet, operator: Operator, control_plane: ControlPlane) -> None:
    apply_as_ci(fleet)
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    operator.kill()
    done = run("rescue", "--namespace", fleet.namespace, KUBECONFIG=str(control_plane.kubeconfig))
    assert (done.returncode, done.stderr) == (0, "")
    assert "openrouter-guard" not in owners(fleet)
    apply_as_ci(fleet, replicas=5)
    assert fleet.replicas() == {"one": 5}


def test_a_second_rescue_leaves_down_what_its_owner_wanted_down(
    fleet: Fleet, operator: Operator, control_plane: ControlPlane
) -> None:
    """The chart runs it twice when a release is uninstalled, and ReplicaSets still carry the pause then."""
    apply_as_ci(fleet)
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    fleet.kubectl("annotate", "deployment/one", f"{RESUME_TO}=stay")
    until(lambda: copies(fleet) and handed_down(fleet, RESUME_TO) == ["stay"])
    until(lambda: "openrouter-guard" not in owners(fleet))
    operator.kill()
    for _ in range(2):
        done = run("rescue", "--namespace", fleet.namespace, KUBECONFIG=str(control_plane.kubeconfig))
        assert (done.returncode, done.stderr) == (0, "")
        assert not remembered(fleet, "one")
        assert fleet.replicas() == {"one": 0}


# -- rollouts under way ---------------------------------------------------------------------------------------------


def test_a_rollout_that_is_under_way_is_left_alone_and_paused_once_it_has_ended(
    fleet: Fleet, operator: Operator
) -> None:
    fleet.deploy(one=4, two=2)
    until(lambda: revisions(fleet) == {"worker": 4})
    get_ready(fleet)
    fleet.watch()
    until(lambda: fleet.deployments()["one"]["status"].get("readyReplicas", 0) > 0)
    roll_out(fleet)
    until(lambda: fleet.deployments()["one"]["status"].get("updatedReplicas", 0) > 0)
    before = revisions(fleet)
    fleet.force("forced_open")
    fleet.until_replicas(one=4, two=0)
    until(lambda: fleet.status()["targets"]["summary"] == "1/1 RolloutInProgress")
    (problem,) = fleet.status()["problems"]
    assert (problem["target"], problem["reason"]) == ("Deployment/one", "RolloutInProgress")
    assert revisions(fleet) == before
    assert "RolloutInProgress" in fleet.kubectl("describe", "ors", "default")
    get_ready(fleet)
    fleet.until_replicas(one=0, two=0)
    fleet.force("forced_closed")
    fleet.until_replicas(one=4, two=2)
    until(lambda: revisions(fleet) == {"worker": 0, "worker:2": 4})


def test_a_target_may_say_that_its_rollouts_are_paused(fleet: Fleet, operator: Operator) -> None:
    fleet.deploy(one=4)
    until(lambda: revisions(fleet) == {"worker": 4})
    get_ready(fleet)
    fleet.watch(targets=ROLLED_OUT)
    until(lambda: fleet.deployments()["one"]["status"].get("readyReplicas", 0) > 0)
    roll_out(fleet)
    fleet.force("forced_open")
    fleet.until_replicas(one=0)


# -- admission ------------------------------------------------------------------------------------------------------


def keeping_two(fleet: Fleet, name: str) -> list[dict[str, Any]]:
    """A policy that lets no Deployment of the namespace have fewer than two pods."""
    group = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}}
    rules = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["deployments"]}
    policy = {
        "reinvocationPolicy": "Never",
        "failurePolicy": "Fail",
        "matchConstraints": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": fleet.namespace}},
            "resourceRules": [rules],
        },
        "matchConditions": [{"name": "low", "expression": "object.spec.replicas < 2"}],
        "mutations": [
            {
                "patchType": "ApplyConfiguration",
                "applyConfiguration": {"expression": "Object{spec: Object.spec{replicas: 2}}"},
            }
        ],
    }
    return [
        group | {"kind": "MutatingAdmissionPolicy", "spec": policy},
        group | {"kind": "MutatingAdmissionPolicyBinding", "spec": {"policyName": name}},
    ]


@pytest.mark.parametrize("on_change", ["Respect", "Enforce"])
def test_admission_that_raises_what_we_write_costs_nobody_the_original(
    fleet: Fleet, operator: Operator, control_plane: ControlPlane, on_change: str
) -> None:
    name = f"keep-two-{fleet.namespace}"
    fleet.deploy(one=5)
    fleet.apply(*keeping_two(fleet, name))
    try:
        until(lambda: written(fleet, 1) == 2)  # the API server takes a moment to know a policy
        fleet.scale("one", 5)
        fleet.watch(onManualChange=on_change)
        fleet.force("forced_open")
        fleet.until_replicas(one=2)
        until(lambda: [p["reason"] for p in fleet.status()["problems"]] == ["ChangedByAdmission"])
        assert fleet.condition("Paused").startswith("True")
        operator.restart()
        fleet.force("forced_closed")
        fleet.until_replicas(one=5)
    finally:
        control_plane.kubectl("delete", "mutatingadmissionpolicybinding,mutatingadmissionpolicy", name)


def written(fleet: Fleet, replicas: int) -> int:
    """What comes of it when somebody writes that number."""
    fleet.kubectl("patch", "deployment/one", "--type=merge", f'--patch={{"spec": {{"replicas": {replicas}}}}}')
    return fleet.replicas()["one"]
