"""Rollouts that their owners have stopped half way, on a real API server: each keeps its revisions."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest

from tests.controlplane import KubectlFailed
from tests.operator.conftest import Fleet, Operator, deployment
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

READY = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}


def ready(fleet: Fleet) -> None:
    """Let each pod that there is be ready, as a node would."""
    status = json.dumps({"status": {"phase": "Running", "conditions": [READY]}})
    for pod in fleet.kubectl("get", "pods", "--output=name").split():
        with suppress(KubectlFailed):  # it may go meanwhile
            fleet.kubectl("patch", pod, "--subresource=status", "--type=merge", f"--patch={status}")


def images(fleet: Fleet, app: str) -> list[str]:
    pods = json.loads(fleet.kubectl("get", "pods", f"--selector=app={app}", "--output=json"))["items"]
    return sorted(
        pod["spec"]["containers"][0]["image"] for pod in pods if not pod["metadata"].get("deletionTimestamp")
    )


def stateful(name: str, **strategy: Any) -> dict[str, Any]:
    body = deployment(name, 3) | {"kind": "StatefulSet"}
    body["spec"] |= {"podManagementPolicy": "Parallel", "serviceName": name, "updateStrategy": strategy}
    body["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 0
    return body


def until_ready(fleet: Fleet, kind: str, name: str, pods: int) -> None:
    def is_ready() -> bool:
        ready(fleet)
        found = json.loads(fleet.kubectl("get", kind, name, "--output=json"))
        return bool(found["status"].get("readyReplicas") == pods)

    until(is_ready)


def problems(fleet: Fleet) -> dict[str, str]:
    return {problem["target"]: problem["reason"] for problem in fleet.status()["problems"]}


def test_a_deployment_that_was_paused_before_its_new_revision_runs_on(fleet: Fleet, operator: Operator) -> None:
    fleet.deploy(one=2, two=2)
    until_ready(fleet, "deployment", "one", 2)
    fleet.watch()
    fleet.kubectl("rollout", "pause", "deployment/one")
    fleet.kubectl("set", "image", "deployment/one", "worker=worker:2")
    until(lambda: fleet.deployments()["one"]["status"].get("updatedReplicas") is None)
    fleet.force("forced_open")
    fleet.until_replicas(one=2, two=0)
    until(lambda: problems(fleet) == {"Deployment/one": "RolloutInProgress"})
    fleet.kubectl("set", "image", "deployment/one", "worker=worker")
    fleet.until_replicas(one=0, two=0)
    fleet.force("forced_closed")
    fleet.until_replicas(one=2, two=2)
    until(lambda: images(fleet, "one") == ["worker"] * 2)


@pytest.mark.parametrize(
    ("strategy", "floor", "is_paused"),
    [
        pytest.param({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}, 0, False, id="a partition"),
        pytest.param({"type": "RollingUpdate", "rollingUpdate": {"partition": 9}}, 0, False, id="one above all pods"),
        pytest.param({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}, 1, True, id="with a floor"),
        pytest.param({"type": "OnDelete"}, 0, False, id="on delete"),
        pytest.param({"type": "OnDelete"}, 1, False, id="on delete, with a floor"),
    ],
)
def test_a_stateful_set_keeps_the_revision_of_each_ordinal(
    fleet: Fleet, operator: Operator, strategy: dict[str, Any], floor: int, *, is_paused: bool
) -> None:
    fleet.apply(stateful("set", **strategy))
    until_ready(fleet, "statefulset", "set", 3)
    fleet.kubectl("set", "image", "statefulset/set", "worker=worker:2")
    has_canary = strategy.get("rollingUpdate", {}).get("partition") == 2
    expected = ["worker", "worker", "worker:2"] if has_canary else ["worker"] * 3
    until(lambda: images(fleet, "set") == expected)
    until_ready(fleet, "statefulset", "set", 3)
    fleet.deploy(other=1)
    fleet.watch(
        targets=[
            {"kind": "StatefulSet", "name": "set", "pausedReplicas": floor},
            {"kind": "Deployment", "name": "other"},
        ]
    )
    fleet.force("forced_open")
    fleet.until_replicas(other=0)
    if is_paused:
        until(lambda: images(fleet, "set") == ["worker"] * floor)
    else:
        until(lambda: problems(fleet) == {"StatefulSet/set": "RolloutInProgress"})
        assert "RolloutInProgress" in fleet.kubectl("get", "ors")
    fleet.force("forced_closed")
    fleet.until_replicas(other=1)
    until(lambda: images(fleet, "set") == expected)


def test_all_at_once_is_no_half_of_anything(fleet: Fleet, operator: Operator) -> None:
    """With ``Recreate`` the old pods are gone before the new ones come."""
    body = deployment("one", 2)
    body["spec"]["strategy"] = {"type": "Recreate"}
    fleet.apply(body)
    until_ready(fleet, "deployment", "one", 2)
    fleet.watch()
    fleet.kubectl("set", "image", "deployment/one", "worker=worker:2")
    until(lambda: images(fleet, "one") == ["worker:2"] * 2)
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    fleet.force("forced_closed")
    fleet.until_replicas(one=2)
