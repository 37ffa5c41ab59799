"""Edits to a resource and its workloads during a pause: no target is stranded, and no original number is lost."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from openrouter_operator.kubernetes.paths import finalizer_of
from openrouter_operator.workloads.workload import PAUSED, Pause
from tests.cli.commands import run
from tests.controlplane import ControlPlane
from tests.operator.conftest import Fleet, Operator, deployment, resource
from tests.operator.crashes import one_of
from tests.operator.proxy import Fault, Hold, Late, Proxy, Seen
from tests.operator.samples import WORKERS
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

BLUE: dict[str, Any] = {"class": "blue"}
QUICK: dict[str, Any] = {"pauseAfterSeconds": 0, "minPausedSeconds": 0, "resume": {"strategy": "Immediate"}}
ORS = "openrouterstatus.openrouter-guard.io"
GREEN: dict[str, Any] = {"class": "green"}
LAG_S = 3.0


# -- the class ------------------------------------------------------------------------------------------------------


def start_class(start: Any, name: str, kubeconfig: Path | None = None) -> Operator:
    started: Operator = start(kubeconfig, OPENROUTER_GUARD_CLASS=name, OPENROUTER_GUARD_LEASE_NAME=name)
    until(lambda: "holding the lease" in started.said())
    return started


def finalizers(fleet: Fleet) -> list[str]:
    found = json.loads(fleet.kubectl("get", "ors", "default", "--output=json"))
    names: list[str] = found["metadata"].get("finalizers") or []
    return names


def test_an_operator_leaves_the_resources_of_another_class_alone(fleet: Fleet, proxy: Proxy, start: Any) -> None:
    start_class(start, "green", proxy.kubeconfig)
    start_class(start, "blue")
    fleet.deploy(one=1)
    fleet.watch(**BLUE)
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    fleet.unwatch("default", "--timeout=15s")
    assert fleet.replicas() == {"one": 1}
    assert [f"{seen.method} {seen.path}" for seen in proxy.written() if not seen.is_of("replicasets")] == []
    assert [
        seen.path for seen in proxy.seen if seen.method == "GET" and seen.is_of("openrouterstatuses", "default")
    ] == []


def test_what_another_class_has_just_restored_is_not_restored_once_more(
    fleet: Fleet, proxy: Proxy, start: Any
) -> None:
    def lags(seen: Seen) -> Fault | None:
        return Late(LAG_S) if seen.is_watch and seen.is_of("deployments") else None

    proxy.rule = lags
    start_class(start, "green", proxy.kubeconfig)
    start_class(start, "blue")
    fleet.deploy(one=1)
    fleet.watch(**BLUE)
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    time.sleep(LAG_S)  # green sees it paused when blue restores it, or even later
    fleet.unwatch("default", "--timeout=15s")
    assert fleet.replicas() == {"one": 1}
    until(lambda: any(seen.method == "GET" and seen.is_of("deployments", "one") for seen in proxy.seen))
    time.sleep(1.0)  # in which it would write
    written = [f"{seen.method} {seen.path}" for seen in proxy.seen if seen.is_write and seen.is_of("deployments")]
    assert written == []


def test_a_resource_that_changes_its_class_while_paused_hands_its_workloads_over(fleet: Fleet, start: Any) -> None:
    fleet.deploy(one=1, three=3)
    start_class(start, "green")
    start_class(start, "blue")
    fleet.watch(**GREEN)
    fleet.force("forced_open")
    fleet.until_replicas(one=0, three=0)
    fleet.watch(**BLUE)
    until(lambda: finalizers(fleet) == [finalizer_of("blue")])
    assert fleet.replicas() == {"one": 0, "three": 0}
    fleet.force("forced_closed")
    fleet.until_replicas(one=1, three=3)
    fleet.unwatch("default", "--timeout=15s")


def test_rescue_lets_go_of_the_resource_of_any_class(fleet: Fleet, start: Any, control_plane: ControlPlane) -> None:
    fleet.deploy(one=1)
    operator = start_class(start, "blue")
    fleet.watch(**BLUE)
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    operator.kill()
    fleet.unwatch("default", "--wait=false")
    assert run("rescue", "--namespace", fleet.namespace, KUBECONFIG=str(control_plane.kubeconfig)).returncode == 0
    until(lambda: not fleet.kubectl("get", "ors", "--output=name"))
    assert fleet.replicas() == {"one": 1}


# -- the spec -------------------------------------------------------------------------------------------------------


@pytest.fixture
def paused(fleet: Fleet, operator: Operator) -> Fleet:
    """Two Deployments, at zero."""
    fleet.deploy(one=1, three=3)
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(one=0, three=0)
    return fleet


def test_a_dry_run_that_begins_in_a_pause_leaves_it_and_says_what_would_come_back(paused: Fleet) -> None:
    paused.watch(dryRun=True)
    paused.force("forced_closed")
    until(lambda: "Deployment/three: from 0 to 3" in paused.status().get("wouldChange", ()))
    assert paused.replicas() == {"one": 0, "three": 0}
    paused.watch(dryRun=False)
    paused.until_replicas(one=1, three=3)


@pytest.mark.parametrize("spec", [{"dryRun": True}, {"suspend": True}], ids=["a dry run", "a suspended one"])
def test_a_resource_that_changes_nothing_gives_back_all_the_same_when_it_is_deleted(
    paused: Fleet, spec: dict[str, Any]
) -> None:
    paused.watch(**spec)
    paused.unwatch("default", "--timeout=15s")
    assert paused.replicas() == {"one": 1, "three": 3}


def test_a_resource_that_turns_to_a_scope_without_an_outage_gives_back(fleet: Fleet, start: Any) -> None:
    start(OPENROUTER_GUARD_ACCESS='[{"scopes": ["*"]}]')
    fleet.deploy(one=1, three=3)
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(one=0, three=0)
    fleet.watch(scope="unheard-of")
    fleet.until_condition("StateFresh", "False NotReported")
    assert fleet.replicas() == {"one": 0, "three": 0}, "nobody knows about that scope yet"
    fleet.watch(scope="unheard-of", maxUnknownSeconds=1)
    fleet.until_replicas(one=1, three=3)
    fleet.watch()
    fleet.until_replicas(one=0, three=0)


def test_whatever_the_mode_becomes_all_comes_back_as_it_was(fleet: Fleet, operator: Operator) -> None:
    targets = [{"kind": kind, "name": "worker"} for kind in ("Deployment", "CronJob")]
    fleet.apply(deployment("worker", 3), one_of("CronJob", "worker"))
    fleet.watch(targets=targets)
    fleet.force("forced_open")
    until(lambda: (fleet.replicas()["worker"], is_suspended(fleet)) == (0, True))
    fleet.watch(targets=targets, mode="Hold")
    until(lambda: (fleet.replicas()["worker"], is_suspended(fleet)) == (3, True))
    fleet.watch(targets=targets, mode="Observe")
    until(lambda: (fleet.replicas()["worker"], is_suspended(fleet)) == (3, False))
    until(lambda: not any("paused" in name for name in marks(fleet, "worker")))


def is_suspended(fleet: Fleet) -> bool:
    return fleet.kubectl("get", "cronjob/worker", "--output=jsonpath={.spec.suspend}") == "true"


def marks(fleet: Fleet, name: str) -> list[str]:
    """Ours, on a Deployment."""
    annotations = fleet.deployments()[name]["metadata"].get("annotations") or {}
    return [each for each in annotations if each.startswith("openrouter-guard.io/")]


def test_targets_that_are_taken_out_in_the_middle_of_the_steps_come_back_whole(paused: Fleet) -> None:
    slowly = {"strategy": "Staged", "stepPercent": 25, "intervalSeconds": 600}
    paused.watch(resume=slowly)
    paused.force("forced_closed")
    until(lambda: sum(paused.replicas().values()) == 1)
    paused.watch(resume=slowly, targets=[{"kind": "Deployment", "name": "one"}])
    until(lambda: paused.replicas()["three"] == 3)
    assert marks(paused, "three") == []


def test_two_resources_that_exchange_their_targets_end_with_every_original(
    fleet: Fleet, proxy: Proxy, start: Any
) -> None:
    one, three = ([{"kind": "Deployment", "name": name}] for name in ("one", "three"))
    fleet.deploy(one=1, three=3)
    proxy.rule = nothing_is_shown  # what one lets go of, the other one has to be told by itself
    start(proxy.kubeconfig)
    fleet.watch(name="first", targets=one)
    fleet.watch(name="second", targets=three)
    fleet.force("forced_open")
    fleet.until_replicas(one=0, three=0)
    fleet.watch(name="first", targets=three)
    fleet.watch(name="second", targets=one)
    until(lambda: (owner(fleet, "one"), owner(fleet, "three")) == ("second", "first"))
    fleet.until_replicas(one=0, three=0)
    fleet.force("forced_closed")
    fleet.until_replicas(one=1, three=3)


def nothing_is_shown(seen: Seen) -> Fault | None:
    """The watch of Deployments is late."""
    return Hold() if seen.is_watch and seen.is_of("deployments") else None


def owner(fleet: Fleet, name: str) -> str:
    """Of a Deployment's pause; empty if it is not paused."""
    annotations = fleet.deployments()[name]["metadata"].get("annotations") or {}
    found = json.loads(annotations.get(PAUSED, "{}"))
    return str(found.get("owner", {}).get("name", ""))


# -- workloads and resources that go and come -----------------------------------------------------------------------


def test_a_workload_that_is_made_anew_under_its_name_is_paused_and_comes_back_as_it_is_now(paused: Fleet) -> None:
    for replicas in (4, 5, 6):
        paused.kubectl("delete", "deployment/one")
        paused.deploy(one=replicas)
        paused.until_replicas(one=0, three=0)
    paused.force("forced_closed")
    paused.until_replicas(one=6, three=3)


def test_a_paused_workload_from_the_backup_of_another_cluster_comes_back_as_it_was_there(paused: Fleet) -> None:
    elsewhere = Pause("uid-elsewhere", "default", epoch=1, original=8, set_to=0, at=1_000.0)
    restored = deployment("restored", 0)
    restored["metadata"]["annotations"] = {PAUSED: elsewhere.text()}
    paused.apply(restored)
    until(lambda: json.loads(pause_of(paused, "restored"))["owner"]["uid"] != "uid-elsewhere")
    paused.until_replicas(one=0, three=0, restored=0)
    paused.force("forced_closed")
    paused.until_replicas(one=1, three=3, restored=8)


def pause_of(fleet: Fleet, name: str) -> str:
    annotations = fleet.deployments()[name]["metadata"].get("annotations") or {}
    return str(annotations.get(PAUSED, '{"owner": {"uid": "uid-elsewhere"}}'))


def test_a_resource_that_is_renamed_while_nobody_operates_loses_no_original(
    paused: Fleet, operator: Operator
) -> None:
    operator.kill()
    paused.unwatch("default", "--wait=false")
    paused.apply(resource("renamed", targets=[WORKERS], **QUICK))
    operator.restart()
    until(lambda: (owner(paused, "one"), owner(paused, "three")) == ("renamed", "renamed"))
    until(lambda: paused.kubectl("get", "ors", "--output=name").split() == [f"{ORS}/renamed"])
    paused.until_replicas(one=0, three=0)
    paused.force("forced_closed")
    paused.until_replicas(one=1, three=3)


def test_a_resource_that_is_made_anew_while_nobody_operates_loses_no_original(
    paused: Fleet, proxy: Proxy, operator: Operator, start: Any
) -> None:
    operator.kill()
    paused.kubectl("patch", "ors", "default", "--type=merge", '--patch={"metadata": {"finalizers": null}}')
    paused.unwatch("default", "--wait=true")
    paused.apply(resource(targets=[WORKERS], **QUICK))
    proxy.rule = nothing_is_shown
    start(proxy.kubeconfig)
    uid = json.loads(paused.kubectl("get", "ors", "default", "--output=json"))["metadata"]["uid"]
    until(lambda: {json.loads(pause_of(paused, name))["owner"]["uid"] for name in ("one", "three")} == {uid})
    paused.until_replicas(one=0, three=0)
    paused.force("forced_closed")
    paused.until_replicas(one=1, three=3)
