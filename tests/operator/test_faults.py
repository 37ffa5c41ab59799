"""Faults between the operator and the API server, injected by a proxy: the rest continues, and the fault heals."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import load_kube_config

from openrouter_operator.controller.apply import Applier
from openrouter_operator.kubernetes import client as clusters
from openrouter_operator.kubernetes.client import Cluster
from openrouter_operator.workloads.inventory import Inventory
from openrouter_operator.workloads.kinds import DEPLOYMENT
from openrouter_operator.workloads.workload import PAUSED, RELEASED, Change, Pause, Workload
from tests.chart.helm import wait_for_crd
from tests.controlplane import ControlPlane, KubectlFailed
from tests.operator.audit import changes
from tests.operator.conftest import CRDS, Fleet, Operator, resource
from tests.operator.proxy import Answer, Fault, Hold, Proxy, Reset, Seen
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

CRD = "openrouterstatuses.openrouter-guard.io"
LEASE_S = 5
"""Longer than in other tests: here an operator is not to lose it because the machine is busy."""


@pytest.fixture
def operator(proxy: Proxy, start: Any) -> Operator:
    started: Operator = start(proxy.kubeconfig, OPENROUTER_GUARD_LEASE_SECONDS=str(LEASE_S))
    return started


def restart(fleet: Fleet, operator: Operator) -> None:
    """Kill it and start it again, without a wait for the lease of the dead."""
    operator.kill()
    fleet.kubectl("delete", "lease", "--all")
    operator.restart()


def spoiled(faults: dict[str, tuple[Fault, int]]) -> Callable[[Seen], Fault | None]:
    """The first so many changes of each of these Deployments meet a fault."""
    left = {name: itertools.repeat(fault, times) for name, (fault, times) in faults.items()}

    def rule(seen: Seen) -> Fault | None:
        name = seen.path.rsplit("/", 1)[-1]
        return next(left[name], None) if seen.method == "PATCH" and name in left else None

    return rule


def changes_of(proxy: Proxy, name: str) -> list[Seen]:
    return [seen for seen in proxy.seen if seen.method == "PATCH" and seen.is_of("deployments", name)]


def problems(fleet: Fleet) -> dict[str, str]:
    return {p["target"]: f"{p['reason']}: {p['message']}" for p in fleet.status().get("problems") or ()}


# -- single requests ------------------------------------------------------------------------------------------------


def test_changes_that_fail_keep_no_other_from_being_made_and_are_made_in_the_end(
    fleet: Fleet, proxy: Proxy, operator: Operator
) -> None:
    fleet.deploy(sound=1, conflicted=2, throttled=3, broken=4, cut=5)
    fleet.watch()
    proxy.rule = spoiled(
        {
            "conflicted": (Answer(409), 3),
            "throttled": (Answer(429, {"Retry-After": "3"}), 1),
            "broken": (Answer(500, message="etcd has no leader"), 2),
            "cut": (Reset(), 2),
        }
    )
    fleet.force("forced_open")
    until(lambda: fleet.replicas()["sound"] == fleet.replicas()["conflicted"] == 0)
    until(lambda: problems(fleet).get("Deployment/broken") == "Unavailable: etcd has no leader")
    assert fleet.condition("Ready") == "False TargetsFailed"
    fleet.until_replicas(sound=0, conflicted=0, throttled=0, broken=0, cut=0)
    fleet.until_condition("Ready", "True")
    assert not problems(fleet)
    first, second, *_ = (seen.at for seen in changes_of(proxy, "throttled"))
    assert second - first >= 3, "the API server has asked for that"
    fleet.force("forced_closed")
    fleet.until_replicas(sound=1, conflicted=2, throttled=3, broken=4, cut=5)


def test_a_deleted_resource_takes_its_mark_along_even_if_its_removal_meets_conflicts(
    fleet: Fleet, proxy: Proxy, operator: Operator
) -> None:
    fleet.deploy(one=3)
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    fleet.scale("one", 5)
    until(lambda: RELEASED in marks(fleet, "one"))
    proxy.rule = spoiled({"one": (Answer(409), 3)})
    fleet.unwatch()
    until(lambda: RELEASED not in marks(fleet, "one"))
    assert fleet.replicas() == {"one": 5}


def marks(fleet: Fleet, name: str) -> dict[str, str]:
    return fleet.deployments()[name]["metadata"].get("annotations") or {}


def test_a_target_that_a_policy_refuses_is_told_of_and_tried_again_ever_less_often(
    fleet: Fleet, control_plane: ControlPlane, proxy: Proxy, operator: Operator
) -> None:
    fleet.deploy(sound=1, guarded=2)
    fleet.watch()
    with refusing(control_plane, fleet, "guarded"):
        fleet.force("forced_open")
        until(lambda: fleet.replicas() == {"sound": 0, "guarded": 2})
        until(lambda: "hands off" in problems(fleet).get("Deployment/guarded", ""))
        assert problems(fleet)["Deployment/guarded"].startswith("Refused: ")
        until(lambda: len(changes_of(proxy, "guarded")) == 3)
    first, second, third = (seen.at for seen in changes_of(proxy, "guarded"))
    assert third - second > 1.5 * (second - first) > 1
    fleet.until_replicas(sound=0, guarded=0)
    until(lambda: not problems(fleet))


@contextmanager
def refusing(control_plane: ControlPlane, fleet: Fleet, name: str) -> Iterator[None]:
    """Somebody's own admission policy that lets nobody change a Deployment."""
    policy = {
        "matchConstraints": {
            "resourceRules": [
                {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["deployments"]}
            ]
        },
        "matchConditions": [
            {"name": "it", "expression": f"request.namespace == '{fleet.namespace}' && request.name == '{name}'"}
        ],
        "validations": [{"expression": "false", "message": "hands off"}],
    }
    binding = {"policyName": fleet.namespace, "validationActions": ["Deny"]}
    kinds = {"ValidatingAdmissionPolicy": policy, "ValidatingAdmissionPolicyBinding": binding}
    for kind, spec in kinds.items():
        body = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "spec": spec}
        control_plane.apply(json.dumps(body | {"metadata": {"name": fleet.namespace}}))

    def is_in_force() -> bool:
        with suppress(KubectlFailed):
            fleet.kubectl("label", f"deployment/{name}", "tried=yes", "--overwrite", "--dry-run=server")
            return False
        return True

    until(is_in_force)
    yield
    control_plane.kubectl("delete", ",".join(kinds), fleet.namespace)


def test_a_status_that_cannot_be_written_keeps_nothing_from_being_paused(
    fleet: Fleet, proxy: Proxy, operator: Operator
) -> None:
    fleet.deploy(one=1)
    fleet.watch()
    is_down = True
    proxy.rule = lambda seen: Answer(500) if is_down and seen.path.endswith("/status") else None
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    assert fleet.condition("Paused") == "False BreakerClosed"
    is_down = False
    fleet.until_condition("Paused", "True")


async def test_a_change_without_an_answer_is_given_up_in_time_and_the_others_are_made(
    fleet: Fleet, control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "TIMEOUT_S", 0.5)
    fleet.deploy(sound=1, hung=2)
    pause = Pause("uid", "default", epoch=1, original=1, set_to=0, at=1_000.0)
    async with Proxy(control_plane, tmp_path / "proxy.kubeconfig") as proxy:
        proxy.rule = spoiled({"hung": (Hold(), 1)})
        async with Cluster(await configuration(proxy.kubeconfig)) as cluster:
            changes = Applier(cluster, Inventory([DEPLOYMENT]))
            workloads = [Workload.of(DEPLOYMENT, body) for body in fleet.deployments().values()]
            await changes.make([Change(workload, 0, pause) for workload in workloads])
    assert fleet.replicas() == {"sound": 0, "hung": 2}
    (failure,) = changes.failures().values()
    assert (failure.reason, "does not answer" in failure.message) == ("Unavailable", True)
    assert 0 < changes.due_in_s() <= 1


async def configuration(kubeconfig: Path) -> Configuration:
    found = Configuration()
    await load_kube_config(str(kubeconfig), client_configuration=found)  # type: ignore[no-untyped-call]
    return found


# -- what is watched ------------------------------------------------------------------------------------------------


def test_watches_that_are_cut_again_and_again_miss_nothing(fleet: Fleet, proxy: Proxy, operator: Operator) -> None:
    fleet.deploy(one=1)
    fleet.watch()
    for number in range(3):
        proxy.cut_watches()
        fleet.deploy(**{f"late-{number}": 2})
    proxy.cut_watches()
    fleet.force("forced_open")
    fleet.until_replicas(one=0, **{f"late-{number}": 0 for number in range(3)})
    proxy.cut_watches()
    fleet.force("forced_closed")
    fleet.until_replicas(one=1, **{f"late-{number}": 2 for number in range(3)})


def test_lists_from_before_the_pause_make_a_new_operator_forget_no_original(
    fleet: Fleet, control_plane: ControlPlane, proxy: Proxy, operator: Operator
) -> None:
    fleet.deploy(one=1, three=3)
    fleet.watch()
    proxy.lists.clear()
    restart(fleet, operator)  # it lists what there is before anything is paused
    until(lambda: operator.said().count("holding the lease") == 2)
    fleet.force("forced_open")
    fleet.until_replicas(one=0, three=0)
    operator.kill()
    stale = dict(proxy.lists)

    def lagging(seen: Seen) -> Fault | None:
        if seen.is_watch and seen.is_of("deployments"):
            return Hold()
        return Answer(200, body=stale[seen.url]) if seen.url in stale else None

    proxy.rule = lagging
    restart(fleet, operator)
    until(lambda: ("three", 409) in changes(control_plane, fleet.namespace, agent="proxy"))  # it took it for running
    fleet.force("forced_closed")
    fleet.until_replicas(one=1, three=3)
    assert not any(PAUSED in (d["metadata"].get("annotations") or {}) for d in fleet.deployments().values())


# -- what goes from under it ----------------------------------------------------------------------------------------


def test_a_namespace_that_is_deleted_while_paused_goes(fleet: Fleet, control_plane: ControlPlane, start: Any) -> None:
    start(OPENROUTER_GUARD_LEASE_NAMESPACE="default", OPENROUTER_GUARD_LEASE_NAME=fleet.namespace)
    fleet.deploy(one=1, three=3)
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(one=0, three=0)
    control_plane.kubectl("delete", "namespace", fleet.namespace, "--timeout=30s")


@pytest.fixture
def lenient(control_plane: ControlPlane, crd: None) -> Iterator[None]:
    """A CRD whose schema takes anything, as an older one may have; it is replaced again at the end."""
    found = json.loads(control_plane.kubectl("get", "crd", CRD, "--output=json"))
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    found["spec"]["versions"][0]["schema"] = {"openAPIV3Schema": anything}
    del found["status"], found["metadata"]["resourceVersion"]
    control_plane.kubectl("replace", "--filename=-", input=json.dumps(found))
    yield
    control_plane.kubectl("replace", "--filename", str(CRDS))


def test_what_an_older_schema_let_in_is_one_resources_mistake(
    lenient: None, fleet: Fleet, control_plane: ControlPlane, start: Any
) -> None:
    def is_taken(spec: Any, *words: str) -> bool:
        with suppress(KubectlFailed):
            fleet.kubectl("create", "--filename=-", *words, stdin=json.dumps(resource("odd") | {"spec": spec}))
            return True
        return False

    fleet.deploy(one=3)
    until(lambda: is_taken([1]))
    control_plane.kubectl("replace", "--filename", str(CRDS))
    until(lambda: not is_taken([2], "--dry-run=server"))
    operator = start()
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    until(lambda: "InvalidSpec" in fleet.kubectl("describe", "openrouterstatus", "odd"))
    assert not operator.has_ended
    fleet.unwatch("odd", "--timeout=30s")
    fleet.force("forced_closed")
    fleet.until_replicas(one=3)


def test_the_crd_may_go_and_come_back(redis_url: str, tmp_path: Path) -> None:
    """On a control plane of its own: it takes every resource of the cluster with it."""
    with ControlPlane() as ours:
        ours.apply(CRDS)
        wait_for_crd(ours)
        environ = {
            "KUBECONFIG": str(ours.kubeconfig),
            "REDIS_URL": redis_url,
            "OPENROUTER_GUARD_OPERATOR_PORT": "0",
            "OPENROUTER_GUARD_LEASE_SECONDS": "2",
        }
        fleet = Fleet(ours, "default", redis_url)
        operator = Operator(environ, tmp_path / "operator.log")
        fleet.deploy(one=1, three=3)
        fleet.watch()
        fleet.force("forced_open")
        fleet.until_replicas(one=0, three=0)
        ours.kubectl("delete", "--filename", str(CRDS), "--timeout=20s")
        fleet.until_replicas(one=1, three=3)
        ours.apply(CRDS)
        wait_for_crd(ours)
        fleet.watch()
        fleet.until_replicas(one=0, three=0)
        fleet.close()
        assert operator.stop() == 0
