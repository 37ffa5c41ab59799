"""The operator with its own ServiceAccount and exactly the chart's rights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openrouter_guard.rules.breaker import BreakerState
from openrouter_operator.workloads.kinds import DEFAULT
from openrouter_operator.workloads.workload import PAUSED
from tests.chart.helm import MINIMAL, Helm, installed
from tests.chart.test_manifests import rules
from tests.controlplane import ControlPlane
from tests.operator.conftest import Fleet, deployment
from tests.operator.crashes import one_of
from tests.operator.proxy import Answer, Fault, Proxy, Seen, SyncProxy
from tests.waiting import until

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize(
    "only_here", [True, False], ids=["in the namespaces that it is given", "in the whole cluster"]
)
def test_the_rights_that_the_chart_gives_are_enough(
    fleet: Fleet, start: Any, helm: Helm, control_plane: ControlPlane, only_here: bool
) -> None:
    namespaces = [fleet.namespace] if only_here else []
    values = {**MINIMAL, "crds": {"install": False}, "operator": {"namespaces": namespaces}}
    with installed(helm, control_plane, fleet.namespace, values) as release:
        kubeconfig = control_plane.kubeconfig_for_service_account(fleet.namespace, release.service_account)
        operator = start(kubeconfig, OPENROUTER_GUARD_NAMESPACES=",".join(namespaces))
        fleet.deploy(one=1, three=3)
        fleet.watch()
        fleet.fail()
        until(lambda: (fleet.replicas()["one"], fleet.replicas()["three"]) == (0, 0))
        fleet.until_phase(BreakerState.HALF_OPEN)
        fleet.succeed()
        until(lambda: (fleet.replicas()["one"], fleet.replicas()["three"]) == (1, 3))
        fleet.unwatch("default", "--timeout=15s")
        assert operator.stop() == 0
    assert refused(control_plane, fleet.namespace, release.service_account) == []


def test_every_right_that_the_chart_gives_is_used(
    fleet: Fleet, start: Any, helm: Helm, control_plane: ControlPlane, tmp_path: Path
) -> None:
    values = {**MINIMAL, "crds": {"install": False}, "operator": {"namespaces": [fleet.namespace]}}
    with installed(helm, control_plane, fleet.namespace, values) as release:
        account = release.service_account
        token = control_plane.kubectl("create", "token", account, f"--namespace={fleet.namespace}").strip()
        with SyncProxy(Proxy(control_plane, tmp_path / "proxy.kubeconfig", token=token)) as proxy:
            proxy.rule = each_meets_a_conflict()
            operator = start(proxy.kubeconfig, OPENROUTER_GUARD_LEASE_NAME=release.operator)
            # One that is rolled out: its annotation is handed down to its ReplicaSet.
            fleet.apply(
                deployment("worker", 1), *(one_of(kind, "worker") for kind in DEFAULT if kind != "Deployment")
            )
            fleet.watch(targets=[{"kind": kind, "name": "worker"} for kind in DEFAULT])
            fleet.force("forced_open")
            fleet.until_condition("Paused", "True")
            until(lambda: has_copies(fleet))
            fleet.unwatch("default", "--timeout=15s")
            until(lambda: not has_copies(fleet))
            assert operator.stop() == 0
        granted = set().union(*(rules(role) for role in roles(control_plane, fleet.namespace)))
    assert used(control_plane, fleet.namespace, account) == granted


def has_copies(fleet: Fleet) -> bool:
    """Whether the Deployment's annotation is on its ReplicaSet too."""
    found = json.loads(fleet.kubectl("get", "replicasets", "--output=json"))["items"]
    return any(PAUSED in (item["metadata"].get("annotations") or {}) for item in found)


def each_meets_a_conflict() -> Callable[[Seen], Fault | None]:
    """Of each object the first change, so that the operator has to look at it."""
    met: set[str] = set()

    def rule(seen: Seen) -> Fault | None:
        is_first = seen.is_write and seen.path not in met
        met.update([seen.path] * seen.is_write)
        is_ours = seen.is_of("openrouterstatuses") and not seen.path.endswith("/status")
        return Answer(409) if is_first and not is_ours else None

    return rule


def roles(control_plane: ControlPlane, namespace: str) -> list[Any]:
    found: list[Any] = control_plane.get("roles", f"--namespace={namespace}")["items"]
    return found


def used(control_plane: ControlPlane, namespace: str, account: str) -> set[tuple[str, str, str]]:
    """Each right that the ServiceAccount has made use of, as (group, resource, verb)."""
    user = f"system:serviceaccount:{namespace}:{account}"
    events = (event for event in control_plane.audit_events() if event["user"]["username"] == user)
    whats = [(event["objectRef"], event["verb"]) for event in events if "objectRef" in event]
    return {
        (what.get("apiGroup", ""), "/".join(filter(None, (what["resource"], what.get("subresource")))), verb)
        for what, verb in whats
    }


def refused(control_plane: ControlPlane, namespace: str, account: str) -> list[str]:
    """What the API server would not do for the ServiceAccount."""
    user = f"system:serviceaccount:{namespace}:{account}"
    events = [event for event in control_plane.audit_events() if event["user"]["username"] == user]
    assert events
    return [f"{e['verb']} {e['requestURI']}" for e in events if e["responseStatus"].get("code") == 403]
