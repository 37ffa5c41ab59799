"""Leave a paused workload at 0: each way to ask for it, on a real API server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openrouter_operator.workloads.workload import PAUSED, RESUME_TO
from tests.controlplane import ControlPlane
from tests.operator import foreign
from tests.operator.conftest import Fleet, Operator, deployment
from tests.operator.crashes import one_of
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

WORKERS = {"selector": {"matchLabels": {"fleet": "workers"}}}


def found(fleet: Fleet, kind: str) -> dict[str, dict[str, Any]]:
    items = json.loads(fleet.kubectl("get", kind, "--output=json"))["items"]
    return {item["metadata"]["name"]: item for item in items}


def replicas(fleet: Fleet, kind: str) -> dict[str, int]:
    return {name: item["spec"]["replicas"] for name, item in found(fleet, kind).items()}


def scale(fleet: Fleet, what: str, pods: int, *words: str) -> None:
    fleet.kubectl("scale", what, f"--replicas={pods}", *words)


def patch_scale(fleet: Fleet, what: str, pods: int) -> None:
    patch = f'{{"spec": {{"replicas": {pods}}}}}'
    fleet.kubectl("patch", what, "--subresource=scale", "--type=merge", f"--patch={patch}")


def test_the_scale_of_each_kind_is_heard_and_of_nobody_else(
    fleet: Fleet, start: Any, control_plane: ControlPlane
) -> None:
    foreign.install(control_plane)
    start(OPENROUTER_GUARD_KINDS="Deployment,StatefulSet,rollouts.argoproj.io")
    sets = [deployment(name, 3) | {"kind": "StatefulSet"} for name in ("down", "plain")]
    custom = [foreign.rollout(name, replicas=4) for name in ("down", "plain")]
    fleet.apply(deployment("down", 2), deployment("twice", 2), deployment("patched", 2), deployment("plain", 2))
    fleet.apply(*sets, *custom)
    rollouts = {"kind": "Rollout", "apiVersion": "argoproj.io/v1alpha1"} | WORKERS
    fleet.watch(targets=[{"kind": "Deployment"} | WORKERS, {"kind": "StatefulSet"} | WORKERS, rollouts])
    fleet.force("forced_open")
    kinds = ("deployments", "statefulsets", "rollouts.argoproj.io")
    until(lambda: all(set(replicas(fleet, kind).values()) == {0} for kind in kinds))
    for what in ("deployment/down", "statefulset/down", "rollout/down", "deployment/twice", "deployment/twice"):
        scale(fleet, what, 0)
    patch_scale(fleet, "deployment/patched", 0)
    until(lambda: fleet.status()["targets"]["paused"] == 3)
    fleet.force("forced_closed")
    until(lambda: replicas(fleet, "deployments") == {"down": 0, "twice": 0, "patched": 0, "plain": 2})
    until(lambda: replicas(fleet, "statefulsets") == {"down": 0, "plain": 3})
    until(lambda: replicas(fleet, "rollouts.argoproj.io") == {"down": 0, "plain": 4})
    texts = [json.dumps(item["metadata"]) for kind in kinds for item in found(fleet, kind).values()]
    assert not any(PAUSED in text for text in texts)


def test_the_annotation_is_heard_on_each_kind_however_it_is_written(
    fleet: Fleet, start: Any, control_plane: ControlPlane
) -> None:
    foreign.install(control_plane)
    start(OPENROUTER_GUARD_KINDS="Deployment,CronJob,Job,ScaledObject")
    fleet.apply(deployment("spaces", 3), deployment("stay", 3), deployment("mind", 3), deployment("odd", 3))
    fleet.apply(one_of("CronJob", "zero"), one_of("CronJob", "plain"), one_of("Job", "stay"))
    fleet.apply(foreign.scaled("ScaledObject", "stay", scaleTargetRef={"name": "none"}))
    fleet.watch(targets=[{"kind": kind} | WORKERS for kind in ("Deployment", "CronJob", "Job", "ScaledObject")])
    fleet.force("forced_open")
    until(lambda: fleet.status()["targets"]["paused"] == 8)
    words = {
        "deployment/spaces": " 0 ",
        "deployment/stay": "STAY",
        "deployment/mind": "0",
        "deployment/odd": "zero",
        "cronjob/zero": "0",
        "job/stay": "stay",
        "scaledobject/stay": "Stay",
    }
    for what, word in words.items():
        fleet.kubectl("annotate", what, f"{RESUME_TO}={word}")
    fleet.kubectl("annotate", "deployment/mind", f"{RESUME_TO}-")
    until(lambda: [p["reason"] for p in fleet.status()["problems"]] == ["ResumeUnclear"])
    fleet.force("forced_closed")
    fleet.until_replicas(spaces=0, stay=0, mind=3, odd=3)
    until(lambda: suspended(fleet, "cronjobs") == {"zero": True, "plain": False})
    until(lambda: not notes(fleet, "jobs")["stay"] and suspended(fleet, "jobs") == {"stay": True})
    until(lambda: notes(fleet, "scaledobjects")["stay"] == {"autoscaling.keda.sh/paused-replicas": "0"})


def suspended(fleet: Fleet, kind: str) -> dict[str, bool]:
    return {name: bool(item["spec"].get("suspend")) for name, item in found(fleet, kind).items()}


def notes(fleet: Fleet, kind: str) -> dict[str, dict[str, str]]:
    pairs = ((name, item["metadata"].get("annotations") or {}) for name, item in found(fleet, kind).items())
    return {name: {key: value for key, value in all_.items() if "kubectl" not in key} for name, all_ in pairs}


def test_what_is_left_at_0_is_not_woken_by_the_next_outage(fleet: Fleet, operator: Operator) -> None:
    fleet.deploy(down=3, plain=2)
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(down=0, plain=0)
    scale(fleet, "deployment/down", 0)
    until(lambda: fleet.status()["targets"]["paused"] == 1)
    for _ in range(2):
        fleet.force("forced_closed")
        fleet.until_replicas(down=0, plain=2)
        until(lambda: fleet.condition("Paused").startswith("False"))
        fleet.force("forced_open")
        fleet.until_replicas(down=0, plain=0)
        until(lambda: fleet.condition("Paused").startswith("True"))
