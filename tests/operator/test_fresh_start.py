"""An operator that has just started and knows nothing of the past."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from openrouter_guard.rules.codec import parse_iso
from openrouter_operator.controller.ownerless import SKEW_S
from openrouter_operator.workloads import manifest as bodies
from openrouter_operator.workloads.workload import PAUSED
from tests.operator.conftest import Fleet, Operator, deployment, resource
from tests.operator.rollouts import get_ready, get_unready, remembered, revisions, roll_out, undo
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.mark.parametrize("is_owner_there", [True, False], ids=["its resource is there", "its resource is gone"])
@pytest.mark.parametrize("is_seen_before", [True, False], ids=["seen at 0 before", "seen with it at first"])
def test_an_undone_rollout_pauses_nothing_though_the_number_of_pods_is_what_it_tells(
    fleet: Fleet, operator: Operator, start: Any, is_owner_there: bool, is_seen_before: bool
) -> None:
    fleet.deploy(one=3, other=2)
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(one=0, other=0)
    note = json.dumps(remembered(fleet, "one"))
    fleet.force("forced_closed")
    fleet.until_replicas(one=3, other=2)
    first = roll_out(fleet)
    fleet.scale("one", 0)
    if not is_owner_there:
        fleet.unwatch()
    operator.kill()
    if is_seen_before:
        newcomer = start()
        until(lambda: "holding the lease" in newcomer.said())
        fleet.watch(name="another", mode="Observe")  # by when it has seen all
        undo(fleet, first, note)
    else:
        undo(fleet, first, note)
        start()
    until(lambda: not remembered(fleet, "one"))
    assert fleet.replicas() == {"one": 0, "other": 2}


def test_what_was_seen_to_run_is_not_paused_by_an_annotation_of_before_though_nobody_owns_its_replicas(
    fleet: Fleet, operator: Operator, start: Any
) -> None:
    """Of what others apply server-side, the managed fields tell nothing: we own nothing there in a pause either."""
    manifest = deployment("one", 3)
    words = ("apply", "--server-side", "--field-manager=ci", "--filename=-")
    fleet.kubectl(*words, stdin=json.dumps(manifest))
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    note = remembered(fleet, "one") | {"original": 9, "set": 3}
    fleet.force("forced_closed")
    fleet.until_replicas(one=3)
    first = roll_out(fleet)
    fleet.unwatch()
    operator.kill()
    time.sleep(SKEW_S)
    newcomer = start()
    until(lambda: "holding the lease" in newcomer.said())
    fleet.watch(name="another", mode="Observe")  # by when it has seen all
    undo(fleet, first, json.dumps(note))
    until(lambda: not remembered(fleet, "one"))
    assert fleet.replicas() == {"one": 3}


@pytest.mark.parametrize("is_told", [True, False], ids=["told before", "begun while no operator was there"])
def test_a_rollout_half_way_is_left_alone_though_no_pod_is_ready_any_more(
    fleet: Fleet, operator: Operator, start: Any, is_told: bool
) -> None:
    """The outage itself may be why: nobody who starts then has ever seen one ready."""
    fleet.deploy(one=4, two=2)
    fleet.watch()
    until(lambda: revisions(fleet) == {"worker": 4})
    get_ready(fleet)
    until(lambda: fleet.deployments()["one"]["status"].get("readyReplicas") == 4)
    if not is_told:
        operator.kill()
    roll_out(fleet)
    until(lambda: fleet.deployments()["one"]["status"].get("updatedReplicas", 0) > 0)
    if is_told:
        until(lambda: [p["reason"] for p in fleet.status()["problems"]] == ["RolloutInProgress"])
        operator.kill()
    # One that was unavailable from its first seconds on would count as one that has never worked.
    made_s = parse_iso(fleet.deployments()["one"]["metadata"]["creationTimestamp"])
    until(lambda: time.time() > made_s + bodies._FIRST_LOOK_S + 1)
    get_unready(fleet)
    until(lambda: not fleet.deployments()["one"]["status"].get("readyReplicas"))
    before = revisions(fleet)
    fleet.force("forced_open")
    start()
    fleet.until_replicas(one=4, two=0)
    until(lambda: fleet.status()["targets"]["summary"] == "1/1 RolloutInProgress")
    assert revisions(fleet) == before
    get_ready(fleet)
    fleet.until_replicas(one=0, two=0)


def test_a_rollout_of_which_no_pod_was_ever_ready_is_paused(fleet: Fleet, start: Any) -> None:
    fleet.deploy(one=4)
    until(lambda: revisions(fleet) == {"worker": 4})
    roll_out(fleet)
    until(lambda: fleet.deployments()["one"]["status"].get("updatedReplicas", 0) > 0)
    start()
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(one=0)


@pytest.mark.parametrize("is_owner_there", [True, False], ids=["its resource is there", "its resource is gone"])
def test_what_an_earlier_version_has_paused_comes_back(fleet: Fleet, start: Any, is_owner_there: bool) -> None:
    """It wrote no UID of the workload, and the API server knows it by another name."""
    fleet.deploy(one=3, other=2)
    targets, at_once = [{"kind": "Deployment", "name": "one"}], {"strategy": "Immediate"}
    fleet.apply(resource("default", targets=targets, minPausedSeconds=0, resume=at_once))
    uid = fleet.kubectl("get", "ors", "default", "--output=jsonpath={.metadata.uid}")
    owner = {"name": "default", "uid": uid if is_owner_there else "5e0c9a5c-0000-4000-8000-000000000000"}
    time.sleep(1.1)  # a Deployment's age is told in whole seconds
    note = {"owner": owner, "epoch": 7, "original": 3, "set": 0, "at": datetime.now(UTC).isoformat()}
    patch = {"metadata": {"annotations": {PAUSED: json.dumps(note)}}, "spec": {"replicas": 0}}
    words = ("--type=merge", f"--patch={json.dumps(patch)}", "--field-manager=OpenAPI-Generator")
    fleet.kubectl("patch", "deployment/one", *words)
    start()
    fleet.until_replicas(one=3, other=2)
    until(lambda: not remembered(fleet, "one"))
