"""Incidents with people and other tools on paused workloads, each as it was once reported."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from openrouter_operator.workloads.workload import OPT, PAUSED, RESUME_TO
from tests.controlplane import ControlPlane, KubectlFailed
from tests.operator import foreign
from tests.operator.conftest import KIND, Fleet, Operator, deployment
from tests.operator.crashes import one_of
from tests.operator.rollouts import remembered
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

WORKERS = {"selector": {"matchLabels": {"fleet": "workers"}}}


def notes(fleet: Fleet, kind: str, name: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(fleet.kubectl("get", kind, name, "--output=json"))["metadata"].get(
        "annotations", {}
    )
    return {key: value for key, value in found.items() if "last-applied" not in key}


def test_forged_annotations_move_nothing(fleet: Fleet, operator: Operator) -> None:
    """Of long ago, of tomorrow, without a UID, of an owner elsewhere: the numbers agree, and none is a pause."""
    names = ("old", "future", "nameless", "elsewhere")
    fleet.deploy(**dict.fromkeys(names, 3))
    fleet.watch()
    owner = {"name": "default", "uid": fleet.kubectl("get", KIND, "default", "--output=jsonpath={.metadata.uid}")}
    forged = {"owner": owner, "epoch": 7, "original": 50, "set": 3, "at": "2026-01-01T00:00:00Z"}
    bodies = fleet.deployments()
    oddities: dict[str, dict[str, Any]] = {
        "old": {},
        "future": {"at": "2099-01-01T00:00:00Z"},
        "nameless": {"at": "2099-01-01T00:00:00Z", "uid": ""},
        "elsewhere": {"owner": owner | {"uid": "5e0c9a5c-0000-4000-8000-000000000000"}},
    }
    for name, odd in oddities.items():
        note = forged | {"uid": bodies[name]["metadata"]["uid"]} | odd
        fleet.kubectl("annotate", f"deployment/{name}", f"{PAUSED}={json.dumps(note)}")
    until(lambda: not any(remembered(fleet, name) for name in names))
    assert fleet.replicas() == dict.fromkeys(names, 3)


def test_a_copy_that_the_spec_names_too_is_paused_with_an_annotation_of_its_own(
    fleet: Fleet, operator: Operator
) -> None:
    fleet.deploy(one=3)
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    body = fleet.deployments()["one"]
    metadata = {key: body["metadata"][key] for key in ("labels", "annotations")}
    copy = deployment("copy", 0) | {"metadata": metadata | {"name": "copy"}}
    fleet.kubectl("create", "--filename=-", stdin=json.dumps(copy))
    uid = fleet.deployments()["copy"]["metadata"]["uid"]
    until(lambda: remembered(fleet, "copy").get("uid") == uid)
    fleet.until_replicas(one=0, copy=0)
    fleet.force("forced_closed")
    fleet.until_replicas(one=3, copy=3)


def test_the_words_of_people_are_heard_however_they_write_them(fleet: Fleet, operator: Operator) -> None:
    words = {"a": "FALSE\n", "b": " nO ", "c": "disabled", "d": "\x1b[31mfalse", "e": "", "f": "YES"}
    fleet.deploy(**dict.fromkeys(words, 2))
    for name, word in words.items():
        patch = {"metadata": {"annotations": {OPT: word}}}
        fleet.kubectl("patch", f"deployment/{name}", "--type=merge", f"--patch={json.dumps(patch)}")
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(a=2, b=2, c=2, d=2, e=2, f=0)
    until(lambda: [p["reason"] for p in fleet.status()["problems"]] == ["PauseUnclear"] * 3)
    assert "\x1b" not in json.dumps(fleet.status(), ensure_ascii=False)


def test_a_target_that_matches_nothing_is_told_until_it_does(fleet: Fleet, operator: Operator) -> None:
    fleet.watch(targets=[{"kind": "Deployment", "name": "late"}], exclude=[{"kind": "Deployment", "name": "never"}])
    until(lambda: {p["reason"] for p in fleet.status()["problems"]} == {"NoMatch"})
    assert fleet.condition("Ready") == "False NoMatch"
    fleet.force("forced_open")
    fleet.deploy(late=2, never=1)
    fleet.until_replicas(late=0, never=1)
    until(lambda: fleet.condition("Ready").startswith("True"))


def test_what_a_policy_keeps_down_is_told_and_comes_back_as_soon_as_it_may(
    fleet: Fleet, operator: Operator, control_plane: ControlPlane
) -> None:
    name = f"keep-down-{fleet.namespace}"
    fleet.deploy(one=3)
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    fleet.apply(*never_up(fleet, name))
    try:
        until(lambda: is_refused(fleet))  # the API server takes a moment to know a policy
        fleet.force("forced_closed")
        until(lambda: [p["reason"] for p in fleet.status()["problems"]] == ["Refused"])
        assert "nobody comes back" in fleet.status()["problems"][0]["message"]
        assert fleet.replicas() == {"one": 0}
    finally:
        control_plane.kubectl("delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", name)
    fleet.until_replicas(one=3)


def never_up(fleet: Fleet, name: str) -> list[dict[str, Any]]:
    group = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}}
    rules = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["deployments"]}
    constraints = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": fleet.namespace}},
        "resourceRules": [rules],
    }
    rule = {"expression": "object.spec.replicas <= oldObject.spec.replicas", "message": "nobody comes back"}
    spec = {"matchConstraints": constraints, "validations": [rule]}
    binding = {"policyName": name, "validationActions": ["Deny"]}
    return [
        group | {"kind": "ValidatingAdmissionPolicy", "spec": spec},
        group | {"kind": "ValidatingAdmissionPolicyBinding", "spec": binding},
    ]


def is_refused(fleet: Fleet) -> bool:
    try:
        fleet.kubectl(
            "patch", "deployment/one", "--type=merge", '--patch={"spec": {"replicas": 9}}', "--dry-run=server"
        )
    except KubectlFailed:
        return True
    return False


def test_cron_jobs_come_back_as_their_owners_wrote_them(fleet: Fleet, operator: Operator) -> None:
    bodies = {name: one_of("CronJob", name, 1) for name in ("absent", "false", "own", "stay")}
    bodies["absent"]["spec"].pop("suspend", None)
    bodies["false"]["spec"]["suspend"] = False
    bodies["own"]["spec"]["suspend"] = True
    fleet.apply(*bodies.values())

    def suspended() -> dict[str, bool]:
        items = json.loads(fleet.kubectl("get", "cronjobs", "--output=json"))["items"]
        return {item["metadata"]["name"]: bool(item["spec"].get("suspend")) for item in items}

    fleet.watch(targets=[{"kind": "CronJob"} | WORKERS])
    fleet.force("forced_open")
    until(lambda: all(suspended().values()))
    fleet.kubectl("annotate", "cronjob/stay", f"{RESUME_TO}=stay")
    assert notes(fleet, "cronjob", "own") == {}
    fleet.force("forced_closed")
    until(lambda: suspended() == {"absent": False, "false": False, "own": True, "stay": True})
    until(lambda: not any(notes(fleet, "cronjob", name) for name in bodies))


def test_autoscalers_that_come_change_and_go_in_a_pause_cost_nobody_their_pods(
    fleet: Fleet, operator: Operator
) -> None:
    fleet.deploy(come=3, change=6, go=3)
    for name in ("change", "go"):
        fleet.kubectl("autoscale", f"deployment/{name}", "--min=2", "--max=8", "--cpu=50%")
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(come=0, change=0, go=0)
    fleet.kubectl("autoscale", "deployment/come", "--min=1", "--max=8", "--cpu=50%")
    fleet.kubectl("patch", "hpa/change", "--type=merge", '--patch={"spec": {"maxReplicas": 4}}')
    fleet.kubectl("delete", "hpa/go")
    fleet.force("forced_closed")
    until(lambda: fleet.condition("Paused").startswith("False"))
    until(lambda: fleet.replicas() in ({"come": 3, "change": n, "go": 3} for n in (4, 6)))


def test_a_resource_with_a_finalizer_of_somebody_else_restores_and_leaves_that_alone(
    fleet: Fleet, operator: Operator
) -> None:
    fleet.deploy(one=3)
    fleet.watch()
    patch = {"metadata": {"finalizers": ["example.com/theirs", "openrouter-guard.io/restore"]}}
    fleet.kubectl("patch", KIND, "default", "--type=merge", f"--patch={json.dumps(patch)}")
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    fleet.unwatch("default", "--wait=false")
    fleet.until_replicas(one=3)
    left = "--output=jsonpath={.metadata.finalizers}"
    until(lambda: fleet.kubectl("get", KIND, "default", left) == '["example.com/theirs"]')


def test_what_stands_in_redis_reaches_people_as_one_short_line(fleet: Fleet, start: Any, redis_url: str) -> None:
    start(OPENROUTER_GUARD_ACCESS=json.dumps([{"override": True}]))
    fleet.deploy(one=3)
    why = "\x1b[31mred\u202e\n" + "long " * 30
    until_when = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    override = {"action": "ForceOpen", "reason": why, "until": until_when}
    fleet.watch(override=override)
    fleet.until_replicas(one=0)
    told = fleet.kubectl("get", "events", "--output=json") + json.dumps(fleet.status()["conditions"])
    assert "red long long" in told
    assert not any(text in told for text in ("\\u001b", "\u202e", "\\u202e", "\x1b"))


def test_two_operators_of_one_lease_change_each_workload_once(fleet: Fleet, start: Any) -> None:
    start()
    start()
    fleet.deploy(one=3, two=2)
    fleet.watch()
    before = {name: body["metadata"]["generation"] for name, body in fleet.deployments().items()}
    fleet.force("forced_open")
    fleet.until_replicas(one=0, two=0)
    fleet.force("forced_closed")
    fleet.until_replicas(one=3, two=2)
    after = {name: body["metadata"]["generation"] for name, body in fleet.deployments().items()}
    assert after == {name: number + 2 for name, number in before.items()}


def test_objects_of_keda_and_argo_keep_what_their_owners_wrote(
    fleet: Fleet, start: Any, control_plane: ControlPlane
) -> None:
    foreign.install(control_plane)
    start(OPENROUTER_GUARD_KINDS="Deployment,ScaledObject,ScaledJob,rollouts.argoproj.io")
    fleet.apply(deployment("behind", 4, fleet="none"))
    fleet.apply(
        foreign.scaled("ScaledObject", "plain", scaleTargetRef={"name": "behind"}),
        foreign.scaled("ScaledObject", "fixed", scaleTargetRef={"name": "none"}),
        foreign.scaled("ScaledJob", "jobs"),
        foreign.rollout("canary", replicas=5),
        foreign.rollout("frozen", replicas=5, paused=True),
    )
    fleet.kubectl("annotate", "scaledobject/fixed", "autoscaling.keda.sh/paused-replicas=2")
    fleet.kubectl("annotate", "scaledjob/jobs", "autoscaling.keda.sh/paused=f")
    # Its pods have been ready: what never was has no revision that is worth keeping.
    ready = {"replicas": 5, "readyReplicas": 5, "availableReplicas": 5}
    status = {"status": {**ready, "stableRS": "a", "currentPodHash": "b", "observedGeneration": "1"}}
    fleet.kubectl("patch", "rollout/canary", "--type=merge", f"--patch={json.dumps(status)}")
    custom = {"kind": "Rollout", "apiVersion": "argoproj.io/v1alpha1"}
    fleet.watch(targets=[{"kind": "ScaledObject"} | WORKERS, {"kind": "ScaledJob"} | WORKERS, custom | WORKERS])
    fleet.force("forced_open")
    until(lambda: notes(fleet, "scaledobject", "plain").get("autoscaling.keda.sh/paused-replicas") == "0")
    until(lambda: notes(fleet, "scaledjob", "jobs").get("autoscaling.keda.sh/paused") == "true")
    assert notes(fleet, "scaledobject", "fixed") == {"autoscaling.keda.sh/paused-replicas": "2"}
    told = {"Rollout/canary": "RolloutInProgress", "Rollout/frozen": "OwnerPaused"}
    until(lambda: {p["target"]: p["reason"] for p in fleet.status()["problems"]} == told)
    fleet.force("forced_closed")
    until(lambda: notes(fleet, "scaledobject", "plain") == {})
    assert notes(fleet, "scaledjob", "jobs") == {"autoscaling.keda.sh/paused": "f"}
