"""Rollouts of ``one`` on a control plane without nodes, and what a Deployment hands down to its ReplicaSets."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from openrouter_operator.workloads.workload import PAUSED
from tests.controlplane import KubectlFailed
from tests.operator.conftest import Fleet
from tests.waiting import until

__all__ = ["copies", "get_ready", "get_unready", "remembered", "replica_sets", "revisions", "roll_out", "undo"]


def remembered(fleet: Fleet, name: str) -> dict[str, Any]:
    annotations = fleet.deployments()[name]["metadata"].get("annotations") or {}
    found: dict[str, Any] = json.loads(annotations.get("openrouter-guard.io/paused", "{}"))
    return found


def replica_sets(fleet: Fleet, name: str = "one") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(fleet.kubectl("get", "replicasets", "--output=json"))["items"]
    return [item for item in found if item["metadata"]["labels"]["app"] == name]


def copies(fleet: Fleet, name: str = "one") -> list[str]:
    """The ReplicaSets that carry our annotation."""
    sets = (item["metadata"] for item in replica_sets(fleet, name))
    return [metadata["name"] for metadata in sets if PAUSED in (metadata.get("annotations") or {})]


def roll_out(fleet: Fleet) -> str:
    """Give ``one`` another revision; returns the ReplicaSet of the one before."""
    (before,) = replica_sets(fleet)
    fleet.kubectl("set", "image", "deployment/one", "worker=worker:2")
    until(lambda: len(replica_sets(fleet)) == 2)
    return str(before["metadata"]["name"])


def get_ready(fleet: Fleet) -> None:
    """Let every pod be ready, as a node would, until the rollout has ended."""
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    status = json.dumps({"status": {"phase": "Running", "conditions": [ready]}})

    def is_even() -> bool:
        if fleet.replicas()["one"] == 0:
            return True  # paused, and so it had ended
        for pod in fleet.kubectl("get", "pods", "--output=name").split():
            with suppress(KubectlFailed):  # it may go meanwhile
                fleet.kubectl("patch", pod, "--subresource=status", "--type=merge", f"--patch={status}")
        found = fleet.deployments()["one"]
        counts = (found["status"].get("replicas"), found["status"].get("updatedReplicas"))
        return counts == (found["spec"]["replicas"],) * 2

    until(is_even)


def get_unready(fleet: Fleet) -> None:
    """Let no pod be ready any more."""
    unready = {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    status = json.dumps({"status": {"conditions": [unready]}})
    for pod in fleet.kubectl("get", "pods", "--output=name").split():
        with suppress(KubectlFailed):
            fleet.kubectl("patch", pod, "--subresource=status", "--type=merge", f"--patch={status}")


def undo(fleet: Fleet, replica_set: str, note: str) -> None:
    """Undo the rollout, while the ReplicaSet before it still remembers the earlier outage."""
    fleet.kubectl("annotate", f"replicaset/{replica_set}", f"{PAUSED}={note}", "--overwrite")
    fleet.kubectl("rollout", "undo", "deployment/one")


def revisions(fleet: Fleet) -> dict[str, int]:
    """How many pods of each image ``one`` is to have."""
    pairs = ((item["spec"]["template"]["spec"]["containers"][0]["image"], item) for item in replica_sets(fleet))
    return {image: item["spec"]["replicas"] for image, item in pairs}
