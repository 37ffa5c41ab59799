"""Every kind of workload on a real API server, with the chart's ServiceAccount and rights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from openrouter_guard.rules.breaker import BreakerState
from openrouter_operator.workloads.kinds import BY_NAME
from tests.chart.helm import MINIMAL, Helm, installed
from tests.cli.commands import run
from tests.controlplane import ControlPlane
from tests.operator import foreign
from tests.operator.conftest import Fleet, Operator, deployment
from tests.operator.test_rights import refused
from tests.waiting import until

pytestmark = pytest.mark.cluster

KEDA = "autoscaling.keda.sh"
CUSTOM = "rollouts.argoproj.io"
KINDS = tuple(BY_NAME)
BY_LABEL: dict[str, Any] = {"selector": {"matchLabels": {"fleet": "workers"}}}
TARGETS = [
    *({"kind": kind, **BY_LABEL} for kind in KINDS),
    {"kind": "Rollout", "apiVersion": "argoproj.io/v1alpha1", **BY_LABEL},
]
PLURALS = ",".join((*(kind.plural for kind in BY_NAME.values()), "rollouts"))


def pods(name: str, **more: Any) -> dict[str, Any]:
    spec = {"containers": [{"name": "worker", "image": "worker"}]}
    return {"metadata": {"labels": {"app": name}}, "spec": spec | more}


def made(api_version: str, kind: str, name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"fleet": "workers"}}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}


def job(name: str, **spec: Any) -> dict[str, Any]:
    return made("batch/v1", "Job", name, template=pods(name, restartPolicy="Never") | {"metadata": {}}, **spec)


def cron_job(name: str, **spec: Any) -> dict[str, Any]:
    template = {"spec": {"template": {"spec": pods(name, restartPolicy="Never")["spec"]}}}
    return made("batch/v1", "CronJob", name, schedule="0 0 1 1 *", jobTemplate=template, **spec)


def stateful(name: str, replicas: int, **more: Any) -> dict[str, Any]:
    selector = {"matchLabels": {"app": name}}
    return made("apps/v1", "StatefulSet", name, replicas=replicas, selector=selector, template=pods(name), **more)


def one_of_each() -> list[dict[str, Any]]:
    labelled = {"matchLabels": {"app": "set"}}
    return [
        deployment("plain", 3),
        stateful("state", 2),
        made("apps/v1", "ReplicaSet", "set", replicas=2, selector=labelled, template=pods("set")),
        made("v1", "ReplicationController", "old", replicas=2, selector={"app": "old"}, template=pods("old")),
        cron_job("nightly"),
        job("once"),
        foreign.scaled("ScaledObject", "scaled", scaleTargetRef={"name": "behind"}),
        foreign.scaled("ScaledJob", "jobs"),
        foreign.rollout("canaried", replicas=4),
        deployment("behind", 5),
    ]


def running(fleet: Fleet) -> dict[str, Any]:
    """What is to run of each worker, by its name."""
    found = json.loads(fleet.kubectl("get", PLURALS, "--selector=fleet=workers", "--output=json"))["items"]
    return {item["metadata"]["name"]: level(item) for item in found}


def level(item: dict[str, Any]) -> Any:
    annotations = item["metadata"].get("annotations") or {}
    if item["apiVersion"].startswith("keda.sh"):
        return {key: value for key, value in annotations.items() if key.startswith(KEDA)}
    return item["spec"].get("replicas", item["spec"].get("suspend"))


def remembering(fleet: Fleet) -> set[str]:
    """The workers that carry any annotation of ours. (ReplicaSets inherit those of their Deployment.)"""
    found = json.loads(fleet.kubectl("get", PLURALS, "--selector=fleet=workers", "--output=json"))["items"]
    return {
        item["metadata"]["name"]
        for item in found
        if any(key.startswith("openrouter-guard.io") for key in item["metadata"].get("annotations") or {})
    }


RUNNING = {
    "plain": 3, "state": 2, "set": 2, "old": 2, "nightly": False, "once": False, "scaled": {}, "jobs": {},
    "canaried": 4, "behind": 5,
}  # fmt: skip
PAUSED = {
    "plain": 0, "state": 0, "set": 0, "old": 0, "nightly": True, "once": True,
    "scaled": {f"{KEDA}/paused-replicas": "0"}, "jobs": {f"{KEDA}/paused": "true"}, "canaried": 0, "behind": 5,
}  # fmt: skip
HELD = RUNNING | {
    "nightly": True, "scaled": {f"{KEDA}/paused": "true"}, "jobs": {f"{KEDA}/paused": "true"},
}  # fmt: skip


@pytest.fixture(scope="module")
def foreigners(control_plane: ControlPlane) -> None:
    foreign.install(control_plane)


@pytest.fixture
def account(
    fleet: Fleet, start: Any, helm: Helm, control_plane: ControlPlane, foreigners: None
) -> Iterator[tuple[str, Operator]]:
    """An operator for every kind that may do what the chart lets it do, and the name of its ServiceAccount."""
    operator = {"namespaces": [fleet.namespace], "kinds": [*KINDS, CUSTOM]}
    values = {**MINIMAL, "crds": {"install": False}, "operator": operator}
    with installed(helm, control_plane, fleet.namespace, values) as release:
        kubeconfig = control_plane.kubeconfig_for_service_account(fleet.namespace, release.service_account)
        started = start(kubeconfig, OPENROUTER_GUARD_KINDS=",".join((*KINDS, CUSTOM)))
        yield release.service_account, started


def test_every_kind_is_paused_and_comes_back_as_it_was(
    fleet: Fleet, account: tuple[str, Operator], control_plane: ControlPlane
) -> None:
    fleet.apply(*one_of_each())
    fleet.watch(targets=TARGETS)
    assert running(fleet) == RUNNING
    fleet.fail()
    until(lambda: running(fleet) == PAUSED)
    until(lambda: fleet.status()["targets"]["summary"] == "9/9")
    assert remembering(fleet) == set(PAUSED) - {"behind"}
    assert [(p["target"], p["reason"]) for p in fleet.status()["problems"]] == [("Deployment/behind", "ScaledByKeda")]
    fleet.until_phase(BreakerState.HALF_OPEN)
    fleet.succeed()
    until(lambda: running(fleet) == RUNNING)
    until(lambda: not remembering(fleet))
    assert refused(control_plane, fleet.namespace, account[0]) == []


def test_hold_stops_new_work_and_leaves_pods_alone(fleet: Fleet, account: tuple[str, Operator]) -> None:
    fleet.apply(*one_of_each())
    until(lambda: json.loads(fleet.kubectl("get", "job", "once", "--output=json")).get("status", {}).get("active"))
    fleet.watch(targets=TARGETS, mode="Hold")
    fleet.fail()
    until(lambda: running(fleet) == HELD)
    until(lambda: fleet.status()["targets"]["summary"] == "3/3")
    fleet.unwatch("default", "--timeout=15s")
    assert running(fleet) == RUNNING


def test_rescue_restores_every_kind(fleet: Fleet, account: tuple[str, Operator], control_plane: ControlPlane) -> None:
    fleet.apply(*one_of_each())
    fleet.watch(targets=TARGETS)
    fleet.fail()
    until(lambda: running(fleet) == PAUSED)
    account[1].kill()
    done = run("rescue", "--namespace", fleet.namespace, KUBECONFIG=str(control_plane.kubeconfig))
    assert (done.returncode, done.stderr) == (0, "")
    assert running(fleet) == RUNNING
    assert not remembering(fleet)


def test_what_is_better_left_alone_is_and_the_status_says_why(fleet: Fleet, account: tuple[str, Operator]) -> None:
    deletes = {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"}}
    queued = job("queued", suspend=True)
    queued["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "gpu"
    theirs = foreign.scaled("ScaledObject", "theirs", scaleTargetRef={"name": "nobody"})
    theirs["metadata"]["annotations"] = {f"{KEDA}/paused-replicas": "2"}
    fleet.apply(
        deployment("plain", 1), stateful("precious", 2, **deletes), cron_job("off", suspend=True), queued, theirs
    )
    fleet.watch(targets=TARGETS)
    before = running(fleet)
    fleet.fail()
    until(lambda: running(fleet) == before | {"plain": 0})
    told = {p["target"]: p["reason"] for p in fleet.status()["problems"] if p["reason"] != "NoMatch"}
    assert told == {"StatefulSet/precious": "WouldDeleteVolumes", "Job/queued": "ManagedByKueue"}
    fleet.unwatch("default", "--timeout=15s")
    assert running(fleet) == before


def test_names_exclusions_and_the_owners_word_decide_what_is_paused(fleet: Fleet, operator: Operator) -> None:
    willing, unwilling = deployment("willing", 1, fleet="others"), deployment("unwilling", 1)
    willing["metadata"]["annotations"] = {"openrouter-guard.io/pause": "true"}
    unwilling["metadata"]["annotations"] = {"openrouter-guard.io/pause": "false"}
    fleet.deploy(one=1, two=2)
    fleet.apply(deployment("named", 1, fleet="others"), deployment("stranger", 1, fleet="others"), willing, unwilling)
    by_name, annotated = {"kind": "Deployment", "name": "named"}, {"kind": "Deployment", "annotated": True}
    fleet.watch(
        targets=[by_name, annotated, {"kind": "Deployment", **BY_LABEL, "pausedReplicas": 1}],
        exclude=[{"kind": "Deployment", "name": "one"}],
    )
    fleet.fail()
    fleet.until_replicas(one=1, two=1, named=0, willing=0, unwilling=1, stranger=1)


def test_a_kind_that_the_operator_does_not_look_after_is_named(fleet: Fleet, operator: Operator) -> None:
    fleet.watch(targets=[{"kind": "ReplicaSet", "name": "any"}])
    fleet.until_condition("Ready", "False KindNotWatched")
    assert "operator.kinds" in fleet.status()["problems"][0]["message"]
    fleet.watch(targets=[{"kind": "CronJob", "apiVersion": "apps/v1", "name": "any"}])
    until(lambda: fleet.status()["problems"][0]["target"] == "apps/v1 CronJob")


def test_a_kind_that_the_cluster_does_not_have_stops_nobody(fleet: Fleet, start: Any) -> None:
    started = start(OPENROUTER_GUARD_KINDS="Deployment,clonesets.apps.kruise.io")
    fleet.deploy(one=1)
    fleet.watch()
    fleet.fail()
    fleet.until_replicas(one=0)
    assert "the cluster has no clonesets.apps.kruise.io" in started.said()
