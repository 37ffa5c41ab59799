"""An operator that has just started, and knows nothing of what was before."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.operator.conftest import Fleet, Operator
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
        until(lambda: "holding the lease" in newcomer.said(), seconds=20)
        fleet.watch(name="another", mode="Observe")  # by when it has seen all
        undo(fleet, first, note)
    else:
        undo(fleet, first, note)
        start()
    until(lambda: not remembered(fleet, "one"), seconds=20)
    assert fleet.replicas() == {"one": 0, "other": 2}


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
    get_unready(fleet)
    until(lambda: not fleet.deployments()["one"]["status"].get("readyReplicas"))
    before = revisions(fleet)
    fleet.force("forced_open")
    start()
    fleet.until_replicas(one=4, two=0, seconds=30)
    until(lambda: fleet.status()["targets"]["summary"] == "1/1 RolloutInProgress")
    assert revisions(fleet) == before
    get_ready(fleet)
    fleet.until_replicas(one=0, two=0, seconds=20)


def test_a_rollout_of_which_no_pod_was_ever_ready_is_paused(fleet: Fleet, start: Any) -> None:
    fleet.deploy(one=4)
    until(lambda: revisions(fleet) == {"worker": 4})
    roll_out(fleet)
    until(lambda: fleet.deployments()["one"]["status"].get("updatedReplicas", 0) > 0)
    start()
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
