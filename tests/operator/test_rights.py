"""The operator as its own ServiceAccount, with exactly the rights that the chart gives it."""

from __future__ import annotations

from typing import Any

import pytest

from openrouter_guard.rules.breaker import Phase
from tests.chart.helm import MINIMAL, Helm, installed
from tests.controlplane import ControlPlane
from tests.operator.conftest import Fleet
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
        until(lambda: (fleet.replicas()["one"], fleet.replicas()["three"]) == (0, 0), seconds=10)
        fleet.until_phase(Phase.HALF_OPEN)
        fleet.succeed()
        until(lambda: (fleet.replicas()["one"], fleet.replicas()["three"]) == (1, 3), seconds=10)
        fleet.unwatch("default", "--timeout=15s")
        assert operator.stop() == 0
    assert refused(control_plane, fleet.namespace, release.service_account) == []


def refused(control_plane: ControlPlane, namespace: str, account: str) -> list[str]:
    """What the API server would not do for the ServiceAccount."""
    user = f"system:serviceaccount:{namespace}:{account}"
    events = [event for event in control_plane.audit_events() if event["user"]["username"] == user]
    assert events
    return [f"{e['verb']} {e['requestURI']}" for e in events if e["responseStatus"].get("code") == 403]
