"""Objects that are deleted while a watch is broken, so that no event reports it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import load_kube_config

from openrouter_operator.kubernetes.client import Cluster, ClusterError
from openrouter_operator.kubernetes.relist import Relist
from openrouter_operator.resource.precedence import Precedence
from openrouter_operator.workloads.inventory import Inventory
from tests.controlplane import ControlPlane
from tests.operator.conftest import Fleet, resource
from tests.operator.proxy import Answer, Fault, Proxy, Reset, Seen
from tests.operator.samples import workload
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

EXPIRED = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}
FLOOR = {"kind": "Deployment", "name": "scaled", "pausedReplicas": 1}


def autoscaler(least: int) -> dict[str, Any]:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "scaled"}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "scaled"},
        "spec": {"scaleTargetRef": target, "minReplicas": least, "maxReplicas": 9},
    }


class Broken:
    """The watch of autoscalers ends, and cannot go on from where it was."""

    def __init__(self) -> None:
        self.is_away = True
        self._tells = [EXPIRED]

    def __call__(self, seen: Seen) -> Fault | None:
        if not (seen.is_watch and seen.is_of("horizontalpodautoscalers")):
            return None
        if self.is_away:
            return Reset()
        return Answer(200, body=json.dumps(self._tells.pop()).encode() + b"\n") if self._tells else None


def test_an_autoscaler_that_was_deleted_without_a_word_holds_nobody_back(
    fleet: Fleet, proxy: Proxy, start: Any
) -> None:
    start(proxy.kubeconfig)
    fleet.deploy(scaled=4)
    fleet.apply(autoscaler(least=3))
    fleet.watch(targets=[FLOOR])
    until(lambda: [p["reason"] for p in fleet.status()["problems"]] == ["BelowAutoscaler"])
    broken = proxy.rule = Broken()
    proxy.cut_watches()
    fleet.kubectl("delete", "hpa", "scaled")
    broken.is_away = False
    until(lambda: fleet.status()["problems"] == [])
    fleet.force("forced_open")
    fleet.until_replicas(scaled=1)
    fleet.force("forced_closed")
    fleet.until_replicas(scaled=4)


async def test_a_count_forgets_what_is_gone_and_nothing_else(fleet: Fleet, control_plane: ControlPlane) -> None:
    fleet.deploy(here=1)
    fleet.apply(resource("here", mode="Observe"))
    inventory, precedence = Inventory(), Precedence()
    for name in ("here", "gone"):
        inventory.put(replace(workload(name), namespace=fleet.namespace))
        claim = resource(name, targets=[FLOOR])
        claim["metadata"] |= {"namespace": fleet.namespace, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"}
        precedence.put(claim)
    async with Cluster(await configured(control_plane.kubeconfig)) as cluster:
        relist = Relist(cluster, inventory, precedence, lambda _: None, [fleet.namespace])
        assert await relist.count() == {fleet.namespace}
        assert await relist.count() == set()
    assert [each.name for each in inventory.of(fleet.namespace)] == ["here"]
    assert precedence.places() == {(fleet.namespace, "here")}


async def test_a_namespace_that_is_left_out_is_not_counted(fleet: Fleet, control_plane: ControlPlane) -> None:
    fleet.kubectl("create", "serviceaccount", "half")
    account = f"--serviceaccount={fleet.namespace}:half"
    fleet.kubectl("create", "rolebinding", "half", "--clusterrole=cluster-admin", account)
    kubeconfig = control_plane.kubeconfig_for_service_account(fleet.namespace, "half")
    async with Cluster(await configured(kubeconfig)) as cluster:
        relist = Relist(cluster, Inventory(), Precedence(), lambda _: None, ["kube-public", fleet.namespace])
        with pytest.raises(ClusterError, match="kube-public"):
            await relist.count()
        relist.keep_to([fleet.namespace])
        assert await relist.count() == set()


async def configured(kubeconfig: Path) -> Configuration:
    found = Configuration()
    await load_kube_config(str(kubeconfig), client_configuration=found)  # type: ignore[no-untyped-call]
    return found
