"""People, GitOps and other controllers that change paused workloads, on a real API server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openrouter_guard.rules.breaker import Phase
from tests.operator.conftest import Fleet, Operator, deployment
from tests.waiting import until

pytestmark = pytest.mark.cluster

ONE = [{"kind": "Deployment", "name": "one"}]


def remembered(fleet: Fleet, name: str) -> dict[str, Any]:
    annotations = fleet.deployments()[name]["metadata"].get("annotations") or {}
    found: dict[str, Any] = json.loads(annotations.get("openrouter-guard.io/paused", "{}"))
    return found


def test_a_pause_that_gitops_undoes_is_put_back_and_the_condition_names_who_undoes_it(
    fleet: Fleet, operator: Operator
) -> None:
    fleet.deploy(one=3)
    fleet.watch(onManualChange="Enforce")
    fleet.fail()
    fleet.until_replicas(one=0)
    manifest = json.dumps(deployment("one", 4))
    fleet.kubectl(
        "apply", "--server-side", "--force-conflicts", "--field-manager=argocd", "--filename=-", stdin=manifest
    )
    until(lambda: remembered(fleet, "one").get("contested", {}).get("by") == "argocd")
    fleet.until_replicas(one=0)
    fleet.until_condition("Ready", "False Contested")
    (problem,) = fleet.status()["problems"]
    assert "'argocd' undoes its pause, put back 1 times" in problem["message"]
    fleet.until_phase(Phase.HALF_OPEN)
    fleet.succeed()
    fleet.until_replicas(one=4)
    fleet.until_condition("Ready", "True")


def test_an_orphaned_pause_outlives_its_resource_and_the_next_of_its_name_takes_it_over(
    fleet: Fleet, operator: Operator
) -> None:
    fleet.deploy(one=3)
    fleet.watch(deletionPolicy="Orphan")
    fleet.fail()
    fleet.until_replicas(one=0)
    fleet.unwatch("default", "--timeout=15s")
    assert remembered(fleet, "one")["orphaned"] is True
    operator.restart()
    fleet.watch(name="another")
    assert fleet.replicas() == {"one": 0}
    assert fleet.status("another")["problems"][0]["reason"] == "PausedByOther"
    fleet.unwatch("another", "--timeout=15s")
    fleet.watch()
    fleet.until_phase(Phase.HALF_OPEN)
    fleet.succeed()
    fleet.until_replicas(one=3)


def test_a_dry_run_changes_nothing_and_says_what_it_would(fleet: Fleet, operator: Operator) -> None:
    fleet.deploy(one=3)
    fleet.watch(dryRun=True)
    fleet.fail()
    until(lambda: fleet.status().get("wouldChange") == ["Deployment/one: from 3 to 0"])
    fleet.until_condition("Ready", "True DryRun")
    assert fleet.replicas() == {"one": 3}
    assert remembered(fleet, "one") == {}


def test_of_two_resources_that_match_a_workload_the_older_has_it_and_the_younger_says_so(
    fleet: Fleet, operator: Operator
) -> None:
    fleet.deploy(one=3)
    fleet.watch(name="first", targets=ONE, pauseAfterSeconds=3600)
    fleet.watch(name="second", targets=ONE)
    fleet.fail()
    until(lambda: [p["reason"] for p in fleet.status("second")["problems"]] == ["MatchedByOther"])
    assert "OpenRouterStatus first" in fleet.status("second")["problems"][0]["message"]
    assert fleet.replicas() == {"one": 3}
    fleet.unwatch("first", "--timeout=15s")
    fleet.until_replicas(one=0)
