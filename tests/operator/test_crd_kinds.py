"""CRDs that appear and disappear while the operator runs with the chart's rights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from openrouter_guard.rules.breaker import BreakerState
from tests.chart.helm import MINIMAL, Helm, installed
from tests.controlplane import ControlPlane
from tests.operator import foreign
from tests.operator.conftest import Fleet, Operator
from tests.operator.proxy import Proxy
from tests.operator.test_rights import refused
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

WORKERS: dict[str, Any] = {"selector": {"matchLabels": {"fleet": "workers"}}}


class Pools:
    """A kind of this test alone."""

    def __init__(self, fleet: Fleet, control_plane: ControlPlane) -> None:
        self.group = f"{fleet.namespace}.example.com"
        self.name = f"pools.{self.group}"
        self.target = {"kind": "Pool", "apiVersion": f"{self.group}/v1", **WORKERS}
        self._fleet = fleet
        self._control_plane = control_plane

    def install(self, **sizes: int) -> None:
        foreign.add(self._control_plane, foreign.crd(self.group, "v1", "Pool", ".spec.pool.size"))
        self.make(**sizes)

    def remove(self) -> None:
        self._control_plane.kubectl("delete", "crd", self.name, "--ignore-not-found", "--timeout=20s")

    def make(self, **sizes: int) -> None:
        self._fleet.apply(*(foreign.pool(self.group, name, size) for name, size in sizes.items()))

    def sizes(self) -> dict[str, int]:
        found = json.loads(self._fleet.kubectl("get", self.name, "--output=json"))["items"]
        return {item["metadata"]["name"]: item["spec"]["pool"]["size"] for item in found}


@pytest.fixture
def pools(fleet: Fleet, control_plane: ControlPlane) -> Iterator[Pools]:
    pools = Pools(fleet, control_plane)
    yield pools
    pools.remove()


def problems(fleet: Fleet) -> list[tuple[str, str]]:
    return [(p["target"], p["reason"]) for p in fleet.status()["problems"]]


def test_a_kind_that_is_installed_later_is_looked_after_and_one_that_is_removed_disturbs_nobody(
    fleet: Fleet, start: Any, helm: Helm, control_plane: ControlPlane, pools: Pools
) -> None:
    kinds = ["Deployment", pools.name]
    with as_the_chart_has_it(fleet, helm, control_plane, kinds) as (account, kubeconfig):
        operator: Operator = start(kubeconfig, OPENROUTER_GUARD_KINDS=",".join(kinds))
        fleet.deploy(one=1)
        fleet.watch(targets=[{"kind": "Deployment", **WORKERS}, pools.target])
        fleet.until_condition("Ready", "False KindNotInstalled")
        assert f"the cluster has no {pools.name}" in operator.said()

        pools.install(first=5)
        until(lambda: f"watching {pools.name}, in version v1" in operator.said())
        fleet.until_condition("Ready", "True")
        pools.make(second=2)
        fleet.force("forced_open")
        until(lambda: fleet.replicas()["one"] == 0)
        until(lambda: pools.sizes() == {"first": 0, "second": 0})
        fleet.force("forced_closed")
        until(lambda: fleet.replicas()["one"] == 1)
        until(lambda: pools.sizes() == {"first": 5, "second": 2})

        pools.remove()
        fleet.until_condition("Ready", "False KindNotInstalled")
        assert f"the cluster has no {pools.name} any more" in operator.said()
        fleet.force("forced_open")
        until(lambda: fleet.replicas()["one"] == 0)
        pools.install(third=3)
        until(lambda: pools.sizes() == {"third": 0})
        fleet.unwatch("default", "--timeout=15s")
        assert (fleet.replicas()["one"], pools.sizes()) == (1, {"third": 3})
        assert operator.stop() == 0
    assert refused(control_plane, fleet.namespace, account) == []


@contextmanager
def as_the_chart_has_it(
    fleet: Fleet, helm: Helm, control_plane: ControlPlane, kinds: list[str]
) -> Iterator[tuple[str, Any]]:
    """The name of the operator's ServiceAccount, and a kubeconfig for it."""
    operator = {"namespaces": [fleet.namespace], "kinds": kinds, "admissionPolicy": {"enabled": False}}
    values = {**MINIMAL, "crds": {"install": False}, "operator": operator}
    with installed(helm, control_plane, fleet.namespace, values) as release:
        account = release.service_account
        yield account, control_plane.kubeconfig_for_service_account(fleet.namespace, account)


def test_what_happens_while_its_watch_is_cut_is_not_missed(
    fleet: Fleet, pools: Pools, proxy: Proxy, start: Any
) -> None:
    pools.install(first=5, doomed=1)
    start(proxy.kubeconfig, OPENROUTER_GUARD_KINDS=f"Deployment,{pools.name}")
    fleet.watch(targets=[pools.target])
    until(lambda: fleet.status()["targets"]["matched"] == 2)
    proxy.cut_watches()
    pools.make(late=2)
    fleet.kubectl("delete", pools.name, "doomed")
    proxy.cut_watches()
    fleet.fail()
    until(lambda: pools.sizes() == {"first": 0, "late": 0})
    until(lambda: fleet.status()["targets"]["summary"] == "2/2")
    lists = [
        seen for seen in proxy.seen if seen.method == "GET" and seen.path.endswith("/pools") and not seen.is_watch
    ]
    assert len(lists) <= 3, "tried, counted by the census, and filled; not listed anew for a cut"
    proxy.cut_watches()
    fleet.until_phase(BreakerState.HALF_OPEN)
    fleet.succeed()
    until(lambda: pools.sizes() == {"first": 5, "late": 2})
