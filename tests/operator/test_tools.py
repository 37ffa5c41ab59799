"""Deployment tools before, during and after a pause: no request is refused, and their number is restored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from openrouter_operator.workloads.workload import PAUSED
from tests.chart.helm import Helm
from tests.controlplane import ControlPlane
from tests.operator.conftest import Fleet, Operator
from tests.operator.tools import Tool, argo, flux, helm, kubectl, manifest, respecting
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

TARGETS = [{"kind": kind, "name": "one", "pauseDuringRollout": True} for kind in ("Deployment", "CronJob")]
"""Without a node no pod gets ready, and no rollout ends."""
FIELDS: Mapping[str, str] = {"Deployment": "replicas", "CronJob": "suspend"}
RUNS: Mapping[str, int | bool] = {"Deployment": 3, "CronJob": False}
MORE: Mapping[str, int | bool] = {"Deployment": 5, "CronJob": False}
PAUSES: Mapping[str, int | bool] = {"Deployment": 0, "CronJob": True}
APPLYING = ("--server-side", "--field-manager=ci")
BY_FORCE = ("--server-side", "--force-conflicts")
TOOLS = {
    "helm 3": "helm_3",
    "helm 4": "helm",
    "kubectl apply": "",
    "kubectl apply --server-side": "",
    "argo": "",
    "argo, server-side": "",
    "argo, ignoring differences": "",
    "argo, server-side, ignoring differences": "",
    "flux, Kustomization": "",
    "flux, HelmRelease": "",
}


@pytest.fixture(params=TOOLS)
def tool(request: pytest.FixtureRequest, fleet: Fleet, control_plane: ControlPlane, tmp_path: Path) -> Tool:
    name: str = request.param
    if program := TOOLS[name]:
        found: Helm = request.getfixturevalue(program)
        return helm(fleet, found, control_plane.kubeconfig, tmp_path / "chart")
    tools = {
        "kubectl apply": lambda: kubectl(fleet),
        "kubectl apply --server-side": lambda: kubectl(fleet, *APPLYING),
        "argo": lambda: argo(fleet),
        "argo, server-side": lambda: argo(fleet, *BY_FORCE),
        "argo, ignoring differences": lambda: respecting(fleet, argo(fleet)),
        "argo, server-side, ignoring differences": lambda: respecting(fleet, argo(fleet, *BY_FORCE)),
        "flux, Kustomization": lambda: flux(fleet, "kustomize-controller"),
        "flux, HelmRelease": lambda: flux(fleet, "helm-controller"),
    }
    return tools[name]()


class Watched:
    """The workload ``one`` of some kind."""

    def __init__(self, fleet: Fleet, kind: str) -> None:
        self.kind = kind
        self._fleet = fleet

    @property
    def body(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            self._fleet.kubectl("get", self.kind.lower(), "one", "--output=json", "--show-managed-fields")
        )
        return found

    @property
    def amount(self) -> int | bool:
        found: int | bool = self.body["spec"][FIELDS[self.kind]]
        return found

    @property
    def is_paused(self) -> bool:
        body = self.body
        is_down = body["spec"][FIELDS[self.kind]] == PAUSES[self.kind]
        return is_down and PAUSED in (body["metadata"].get("annotations") or {})

    @property
    def image(self) -> str:
        spec = self.body["spec"]
        pod = spec["template"] if self.kind == "Deployment" else spec["jobTemplate"]["spec"]["template"]
        return str(pod["spec"]["containers"][0]["image"])

    @property
    def is_contested(self) -> bool:
        return "contested" in self.body["metadata"]["annotations"][PAUSED]

    @property
    def is_free(self) -> bool:
        """Whether the API server knows us as the owner of nothing."""
        return all(entry["manager"] != "openrouter-guard" for entry in self.body["metadata"]["managedFields"])

    @property
    def is_applied(self) -> bool:
        return any(entry["operation"] == "Apply" for entry in self.body["metadata"]["managedFields"])


@pytest.fixture(params=["Deployment", "CronJob"])
def one(request: pytest.FixtureRequest, fleet: Fleet, operator: Operator, tool: Tool) -> Watched:
    """Deployed by the tool, with a manifest that names its replicas, and paused."""
    one = Watched(fleet, request.param)
    tool.apply(manifest(one.kind, amount=RUNS[one.kind]))
    fleet.watch(targets=TARGETS)
    fleet.force("forced_open")
    until(lambda: one.is_paused)
    return one


def holds(one: Watched, fleet: Fleet, tool: Tool) -> bool:
    """Whether the pause holds, once what the tool has written is undone."""
    return one.is_paused and one.is_contested is tool.has_a_say and (one.is_free or not one.is_applied)


def test_a_tool_is_refused_nothing_and_its_number_comes_back(tool: Tool, one: Watched, fleet: Fleet) -> None:
    until(lambda: one.is_free or not one.is_applied)
    tool.apply(manifest(one.kind, "worker:2", RUNS[one.kind]))
    until(lambda: holds(one, fleet, tool))
    tool.apply(manifest(one.kind, "worker:3", MORE[one.kind]))
    until(lambda: holds(one, fleet, tool))
    assert one.image == "worker:3"
    fleet.force("forced_closed")
    until(lambda: one.amount == (MORE if tool.has_a_say else RUNS)[one.kind])
    until(lambda: one.is_free)
    tool.apply(manifest(one.kind, "worker:4", RUNS[one.kind]))
    assert (one.image, one.amount) == ("worker:4", RUNS[one.kind])
    assert one.is_free


def test_an_upgrade_is_told_on_the_workload(fleet: Fleet, operator: Operator) -> None:
    tool, one = kubectl(fleet), Watched(fleet, "Deployment")
    tool.apply(manifest("Deployment", amount=3))
    fleet.watch(targets=TARGETS)
    fleet.force("forced_open")
    until(lambda: one.is_paused)
    tool.apply(manifest("Deployment", amount=5))
    told = "kubectl-client-side-apply changed it during the pause, which holds: 5 pods run once it is over"
    until(lambda: told in fleet.kubectl("describe", "deployment/one"))


def test_what_is_scaled_by_itself_is_a_decision(fleet: Fleet, operator: Operator) -> None:
    tool, one = kubectl(fleet, *APPLYING), Watched(fleet, "Deployment")
    tool.apply(manifest("Deployment", amount=3))
    fleet.watch(targets=TARGETS[:1])
    fleet.force("forced_open")
    until(lambda: one.is_paused and one.is_free)
    fleet.kubectl("patch", "deployment/one", '--patch={"spec": {"replicas": 4}}')
    until(lambda: [p["reason"] for p in fleet.status().get("problems", ())] == ["Released"])
    assert one.amount == 4
