"""The order and the length of pauses, and who may override them, on a real API server."""

from __future__ import annotations

from typing import Any

import pytest

from openrouter_guard.rules.breaker import BreakerState
from tests.controlplane import ControlPlane
from tests.operator.conftest import Fleet, Operator, deployment
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def test_what_matters_less_is_paused_before_the_rest_and_comes_back_after_it(
    fleet: Fleet, control_plane: ControlPlane, operator: Operator
) -> None:
    fleet.apply(*(deployment(name, 2, tier=name[:-1]) for name in ("main1", "main2", "batch1", "batch2")))
    tiers = {"main": 10, "batch": -10}
    fleet.watch(targets=[of_tier(tier, priority) for tier, priority in tiers.items()])
    fleet.force("forced_open")
    fleet.until_replicas(main1=0, main2=0, batch1=0, batch2=0)
    assert order(control_plane, fleet) == ["batch", "batch", "main", "main"]
    fleet.force("forced_closed")
    fleet.until_replicas(main1=2, main2=2, batch1=2, batch2=2)
    until(lambda: len(order(control_plane, fleet)) == 8)
    assert order(control_plane, fleet)[4:] == ["main", "main", "batch", "batch"]


def of_tier(tier: str, priority: int) -> dict[str, Any]:
    return {"kind": "Deployment", "selector": {"matchLabels": {"tier": tier}}, "priority": priority}


def order(control_plane: ControlPlane, fleet: Fleet) -> list[str]:
    """The tiers of the operator's changes, oldest first."""
    events = (event for event in control_plane.audit_events() if event["responseStatus"].get("code") == 200)
    whats = (event["objectRef"] for event in events if "fieldManager=openrouter-guard" in event["requestURI"])
    ours = (what for what in whats if (what["namespace"], what["resource"]) == (fleet.namespace, "deployments"))
    return [what["name"][:-1] for what in ours]


def test_after_the_longest_pause_all_comes_back_and_stays_though_the_breaker_is_open(
    fleet: Fleet, operator: Operator
) -> None:
    fleet.deploy(one=1, three=3)
    fleet.watch(maxPauseSeconds=1)
    fleet.force("forced_open")
    until(lambda: fleet.status().get("lastResume", {}).get("reason") == "MaxPause")
    fleet.until_replicas(one=1, three=3)
    fleet.kubectl("annotate", "ors", "default", "note=reconciled")
    fleet.kubectl("label", "deployment/one", "note=reconciled")
    until(lambda: [p["reason"] for p in fleet.status()["problems"]] == ["Released"] * 2)
    assert (fleet.replicas(), fleet.condition("UpstreamAvailable")) == ({"one": 1, "three": 3}, "False BreakerOpen")
    assert fleet.status()["override"]["by"] == "a test"
    fleet.force("forced_closed")
    until(lambda: fleet.status()["problems"] == [])
    fleet.force("forced_open")
    until(lambda: fleet.status()["lastPause"]["reason"].startswith("forced_open") and 0 in fleet.replicas().values())


def test_a_suspended_resource_leaves_what_is_paused_until_it_may_act_again(fleet: Fleet, operator: Operator) -> None:
    fleet.deploy(one=3)
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    fleet.watch(suspend=True)
    fleet.force("forced_closed")
    fleet.until_condition("UpstreamAvailable", "True")
    fleet.until_condition("Ready", "True Suspended")
    assert fleet.replicas() == {"one": 0}
    fleet.watch()
    fleet.until_replicas(one=3)


def test_steps_that_meet_the_next_outage_go_back_to_zero_and_keep_the_first_original(
    fleet: Fleet, operator: Operator
) -> None:
    fleet.deploy(one=8)
    fleet.watch(resume={"strategy": "Staged", "stepPercent": 25, "intervalSeconds": 600})
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    fleet.force("forced_closed")
    fleet.until_replicas(one=2)
    assert fleet.status()["progress"]["step"] == "resume"
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    fleet.watch(resume={"strategy": "Immediate"})
    fleet.force("forced_closed")
    fleet.until_replicas(one=8)
    assert fleet.condition("UpstreamAvailable").startswith("True")


def test_only_the_reasons_that_are_asked_for_pause(fleet: Fleet, operator: Operator) -> None:
    fleet.deploy(one=1)
    fleet.watch(pauseOn=["CreditsExhausted"])
    fleet.fail()
    fleet.until_phase(BreakerState.OPEN)
    fleet.until_condition("UpstreamAvailable", "False BreakerOpen")
    assert (fleet.replicas(), fleet.condition("Paused")) == ({"one": 1}, "False NotPausedOn")
    fleet.watch(pauseOn=["Outage"])
    fleet.fail()
    fleet.until_replicas(one=0)
