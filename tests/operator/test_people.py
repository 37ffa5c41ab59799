"""People, GitOps and other controllers that change paused workloads, on a real API server."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from openrouter_guard.rules.breaker import Phase
from openrouter_guard.rules.wire import unix_s
from tests.controlplane import KubectlFailed
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


def replace(fleet: Fleet, name: str, replicas: int) -> None:
    """As a tool does that knows nothing of annotations: what it does not write is gone."""

    def is_replaced() -> bool:
        with suppress(KubectlFailed):  # the controllers write at the same time
            fleet.kubectl("replace", "--filename=-", stdin=json.dumps(deployment(name, replicas)))
            return True
        return False

    until(is_replaced)


def has(fleet: Fleet, name: str, replicas: int) -> bool:
    return fleet.replicas()[name] == replicas


def is_contested(fleet: Fleet, times: int) -> bool:
    return bool(remembered(fleet, "one").get("contested", {}).get("times") == times)


def test_a_paused_workload_that_somebody_replaces_is_theirs_until_the_outage_is_over(
    fleet: Fleet, operator: Operator
) -> None:
    fleet.deploy(one=3)
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    for replicas in (4, 5):
        replace(fleet, "one", replicas)
        fleet.deploy(**{f"late-{replicas}": 1})
        until(partial(has, fleet, f"late-{replicas}", 0))
        until(lambda: [p["reason"] for p in fleet.status()["problems"]] == ["Released"])
        assert fleet.replicas()["one"] == replicas
    fleet.force("forced_closed")
    fleet.until_replicas(one=5, **{"late-4": 1, "late-5": 1})
    fleet.force("forced_open")
    fleet.until_replicas(one=0, **{"late-4": 0, "late-5": 0})


def test_a_pause_that_somebody_undoes_by_replacing_is_put_back_ever_later(fleet: Fleet, operator: Operator) -> None:
    fleet.deploy(one=3)
    fleet.watch(onManualChange="Enforce")
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    fights = []
    for times in (1, 2):
        replace(fleet, "one", 4)
        until(partial(is_contested, fleet, times), seconds=15)
        fleet.until_replicas(one=0)
        fights.append(remembered(fleet, "one")["contested"])
    assert unix_s(fights[1]["at"]) - unix_s(fights[0]["at"]) >= 5
    assert fights[1]["by"] == "kubectl-replace"
    fleet.force("forced_closed")
    fleet.until_replicas(one=4)


def test_an_annotation_that_somebody_takes_away_comes_back_and_so_does_the_workload(
    fleet: Fleet, operator: Operator
) -> None:
    fleet.deploy(one=3)
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    fleet.until_condition("Paused", "True")
    replace(fleet, "one", 0)
    until(lambda: remembered(fleet, "one").get("original") == 3)
    replace(fleet, "one", 0)
    fleet.force("forced_closed")
    fleet.until_replicas(one=3)


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
