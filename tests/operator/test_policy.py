"""The chart's admission policy alone: even with all rights, the ServiceAccount may do no more than pause."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from openrouter_operator.kubernetes.paths import FINALIZER
from openrouter_operator.workloads.kinds import DEPLOYMENT
from openrouter_operator.workloads.workload import PAUSED, RELEASED, Pause, Workload, restored
from tests.chart.helm import MINIMAL, Helm, HelmFailed, installed
from tests.controlplane import ControlPlane, KubectlFailed
from tests.operator import foreign
from tests.operator.conftest import Fleet, deployment, resource
from tests.waiting import until

pytestmark = pytest.mark.cluster

MEMORY = Pause("uid-of-owner", "default", epoch=1, original=3, set_to=0, at=1_000.0).text()
AT_ITS_FLOOR = Pause("uid-of-owner", "default", epoch=1, original=3, set_to=2, at=1_000.0).text()
PAUSE = {"metadata": {"annotations": {PAUSED: MEMORY}}, "spec": {"replicas": 0}}
CRON_JOB = {
    "apiVersion": "batch/v1",
    "kind": "CronJob",
    "metadata": {"name": "nightly"},
    "spec": {
        "schedule": "0 3 * * *",
        "jobTemplate": {
            "spec": {
                "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "job", "image": "job"}]}}
            }
        },
    },
}


class Account:
    """The operator's ServiceAccount, and what it tries."""

    def __init__(self, control_plane: ControlPlane, kubeconfig: Path, namespace: str) -> None:
        self._run: Callable[..., str] = control_plane.kubectl
        self.kubeconfig = kubeconfig
        self._namespace = namespace

    def patch(self, what: str, patch: Any, *words: str, kind: str = "merge") -> None:
        place = (f"--namespace={self._namespace}", f"--type={kind}", f"--patch={json.dumps(patch)}")
        self._run("patch", what, *place, *words, kubeconfig=self.kubeconfig)

    def is_held_back(self) -> bool:
        """Whether the policy is in force by now, which takes the API server a moment."""
        try:
            self.patch("deployment/one", {"metadata": {"labels": {"tried": "yes"}}}, "--dry-run=server")
        except KubectlFailed as error:
            return "ValidatingAdmissionPolicy" in str(error)
        return False


@pytest.fixture
def values(namespace: str) -> dict[str, Any]:
    """Those of the chart for the operator."""
    return {"namespaces": [namespace]}


@pytest.fixture
def account(fleet: Fleet, helm: Helm, control_plane: ControlPlane, values: dict[str, Any]) -> Iterator[Account]:
    whole = {**MINIMAL, "crds": {"install": False}, "operator": values}
    with installed(helm, control_plane, fleet.namespace, whole) as release:
        subject = f"--serviceaccount={fleet.namespace}:{release.service_account}"
        fleet.kubectl("create", "rolebinding", "everything", "--clusterrole=cluster-admin", subject)
        fleet.apply(deployment("one", 3), CRON_JOB, resource(mode="Observe"))
        fleet.kubectl("annotate", "deployment/one", "team=search")
        kubeconfig = control_plane.kubeconfig_for_service_account(fleet.namespace, release.service_account)
        account = Account(control_plane, kubeconfig, fleet.namespace)
        until(account.is_held_back)
        yield account


TOO_MUCH = {
    "the image": (
        "deployment/one",
        {"spec": {"template": {"spec": {"containers": [{"name": "worker", "image": "another"}]}}}},
        "no field of spec but replicas and suspend",
    ),
    "the environment": (
        "deployment/one",
        {
            "spec": {
                "template": {
                    "spec": {
                        "containers": [{"name": "worker", "image": "worker", "env": [{"name": "A", "value": "b"}]}]
                    }
                }
            }
        },
        "no field of spec but replicas and suspend",
    ),
    "a field that was not there": (
        "deployment/one",
        {"spec": {"minReadySeconds": 60}},
        "elsewhere, operator.replicasPaths of the chart has to say so",
    ),
    "a rollout's pause": ("deployment/one", {"spec": {"paused": True}}, "no field of spec but replicas and suspend"),
    "a field to take away": (
        "deployment/one",
        {"spec": {"revisionHistoryLimit": None, "progressDeadlineSeconds": 9999}},
        "no field of spec but replicas and suspend",
    ),
    "another field beside a pause": (
        "deployment/one",
        PAUSE | {"spec": {"replicas": 0, "minReadySeconds": 60}},
        "no field of spec but replicas and suspend",
    ),
    "a schedule": ("cronjob/nightly", {"spec": {"schedule": "* * * * *"}}, "no field of spec"),
    "replicas without a memory of what they were": (
        "deployment/one",
        {"spec": {"replicas": 0}},
        "only of what remembers what it was",
    ),
    "suspend without a memory of what it was": (
        "cronjob/nightly",
        {"spec": {"suspend": True}},
        "only of what remembers what it was",
    ),
    "a label": ("deployment/one", {"metadata": {"labels": {"fleet": "others"}}}, "may change no label"),
    "an annotation of somebody else": (
        "deployment/one",
        {"metadata": {"annotations": {"team": "ours"}}},
        "no annotation but its own",
    ),
    "an annotation of somebody else to take away": (
        "deployment/one",
        {"metadata": {"annotations": {"team": None}}},
        "no annotation but its own",
    ),
    "a new annotation": (
        "deployment/one",
        {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}},
        "no annotation but its own",
    ),
    "a finalizer": (
        "deployment/one",
        {"metadata": {"finalizers": [FINALIZER]}},
        "neither owners nor finalizers",
    ),
    "an owner": (
        "deployment/one",
        {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"}]}},
        "neither owners nor finalizers",
    ),
    "more replicas than there were": ("deployment/one", PAUSE | {"spec": {"replicas": 9}}, "than there were before"),
    "a finalizer of somebody else's on our resource": (
        "ors/default",
        {"metadata": {"finalizers": ["example.com/mine"]}},
        "finalizers, but for its own",
    ),
    "what a resource asks for": ("ors/default", {"spec": {"suspend": True}}, "no field of spec"),
    "the data of anything": ("configmap/kube-root-ca.crt", {"data": {"more": "data"}}, "but metadata and spec"),
}


def test_whatever_goes_beyond_a_pause_is_refused(account: Account, fleet: Fleet) -> None:
    before = fleet.deployments()["one"]
    for tried, (what, patch, words) in TOO_MUCH.items():
        with pytest.raises(KubectlFailed) as refused:
            account.patch(what, patch)
        assert words in str(refused.value), tried
    after = fleet.deployments()["one"]
    assert (after["spec"], after["metadata"]["labels"]) == (before["spec"], before["metadata"]["labels"])


def test_what_was_paused_comes_back_with_no_more_than_it_had(account: Account, fleet: Fleet) -> None:
    account.patch("deployment/one", PAUSE)
    with pytest.raises(KubectlFailed, match="no more replicas than there were before the pause"):
        account.patch("deployment/one", {"spec": {"replicas": 4}})
    account.patch("deployment/one", {"spec": {"replicas": 2}})
    account.patch("deployment/one", {"spec": {"replicas": 3}, "metadata": {"annotations": {PAUSED: None}}})
    assert fleet.replicas()["one"] == 3


def test_what_is_paused_keeps_its_floor(account: Account, fleet: Fleet) -> None:
    floor = {"metadata": {"annotations": {PAUSED: AT_ITS_FLOOR}}, "spec": {"replicas": 2}}
    with pytest.raises(KubectlFailed, match="no fewer replicas than the annotation of the pause says"):
        account.patch("deployment/one", floor | {"spec": {"replicas": 1}})
    account.patch("deployment/one", floor)
    with pytest.raises(KubectlFailed, match="no fewer replicas than the annotation of the pause says"):
        account.patch("deployment/one", {"spec": {"replicas": 0}})
    account.patch("deployment/one", PAUSE)
    assert fleet.replicas()["one"] == 0


def test_finalizers_of_others_on_our_resource_stay(account: Account, fleet: Fleet) -> None:
    theirs = {"metadata": {"finalizers": ["example.com/mine"]}}
    fleet.kubectl("patch", "ors", "default", "--type=merge", f"--patch={json.dumps(theirs)}")
    try:
        account.patch("ors/default", {"metadata": {"finalizers": ["example.com/mine", FINALIZER]}})
        account.patch("ors/default", theirs)
        with pytest.raises(KubectlFailed, match="neither owners nor finalizers"):
            account.patch("ors/default", {"metadata": {"finalizers": [FINALIZER]}})
    finally:
        fleet.kubectl("patch", "ors", "default", "--type=merge", '--patch={"metadata": {"finalizers": null}}')


class TestProtectedNamespaces:
    """The operator looks after the namespace, and its policy keeps it out."""

    @pytest.fixture
    def values(self, namespace: str) -> dict[str, Any]:
        return {"namespaces": [namespace], "protectedNamespaces": [namespace]}

    def test_nothing_is_paused_there(self, account: Account, fleet: Fleet) -> None:
        with pytest.raises(KubectlFailed, match="nothing in kube-system, nor in"):
            account.patch("deployment/one", PAUSE)
        account.patch("ors/default", {"metadata": {"finalizers": [FINALIZER]}})
        account.patch("ors/default", {"metadata": {"finalizers": None}})


@pytest.mark.parametrize("part", ["scale", "status"])
def test_no_subresource_is_a_way_around(account: Account, part: str) -> None:
    with pytest.raises(KubectlFailed, match="no subresource of it"):
        account.patch("deployment/one", {"spec": {"replicas": 9}}, f"--subresource={part}")


def test_a_pause_and_its_end_are_admitted(account: Account, fleet: Fleet) -> None:
    account.patch("deployment/one", PAUSE)
    assert fleet.replicas()["one"] == 0
    change = restored(Workload.of(DEPLOYMENT, fleet.deployments()["one"]))
    assert change
    account.patch("deployment/one", change.patch())
    assert fleet.replicas()["one"] == 3
    account.patch("deployment/one", {"metadata": {"annotations": {RELEASED: "default/now"}}})
    account.patch("cronjob/nightly", {"metadata": PAUSE["metadata"], "spec": {"suspend": True}})
    account.patch("cronjob/nightly", {"metadata": {"annotations": {PAUSED: None}}, "spec": {"suspend": False}})
    account.patch("deployment/one", {"metadata": {"annotations": {"autoscaling.keda.sh/paused-replicas": "0"}}})


def test_its_own_resource_keeps_its_status_and_finalizer_in_its_hands(account: Account) -> None:
    account.patch("ors/default", {"metadata": {"finalizers": [FINALIZER]}})
    account.patch("ors/default", {"status": {"observedGeneration": 1}}, "--subresource=status")
    account.patch("ors/default", {"metadata": {"finalizers": None}})


# -- a custom kind that keeps its replicas in a place of its own ----------------------------------------------------


class TestReplicasElsewhere:
    @pytest.fixture
    def kind(self, namespace: str, control_plane: ControlPlane) -> Iterator[str]:
        """The group of a kind of this test alone."""
        group = f"{namespace}.example.com"
        foreign.add(control_plane, foreign.crd(group, "v1", "Pool", ".spec.pool.size"))
        yield group
        control_plane.kubectl("delete", "crd", f"pools.{group}", "--timeout=20s")

    @pytest.fixture
    def values(self, namespace: str, kind: str) -> dict[str, Any]:
        kinds = ["Deployment", f"pools.{kind}"]
        return {"namespaces": [namespace], "kinds": kinds, "replicasPaths": {kinds[1]: ".spec.pool.size"}}

    def test_the_operator_pauses_and_restores_it_under_the_policy(
        self, account: Account, fleet: Fleet, start: Any, kind: str
    ) -> None:
        start(account.kubeconfig, OPENROUTER_GUARD_KINDS=f"Deployment,pools.{kind}")
        fleet.apply(foreign.pool(kind, "one", 5))
        target = {"kind": "Pool", "apiVersion": f"{kind}/v1", "name": "one"}
        fleet.watch(name="pools", targets=[target])
        fleet.force("forced_open")
        until(lambda: size(fleet, kind) == 0)
        fleet.unwatch("pools", "--timeout=15s")
        assert size(fleet, kind) == 5

    def test_and_changes_nothing_else_of_it(self, account: Account, fleet: Fleet, kind: str) -> None:
        fleet.apply(foreign.pool(kind, "one", 5))
        journal = PAUSE["metadata"]
        for spec, words in (
            ({"image": "another"}, "no field of spec"),
            ({"replicas": 3}, "no field of spec"),
            ({"pool": {"zone": "b"}}, "may change spec.pool.size alone"),
            ({"pool": {"zone": None}}, "may change spec.pool.size alone"),
            ({"pool": {"more": 1}}, "may change spec.pool.size alone"),
            ({"pool": None}, "may change spec.pool.size alone"),
        ):
            with pytest.raises(KubectlFailed) as refused:
                account.patch(f"pools.{kind}/one", {"metadata": journal, "spec": spec})
            assert words in str(refused.value), spec
        with pytest.raises(KubectlFailed, match="only where that remembers what it was"):
            account.patch(f"pools.{kind}/one", {"spec": {"pool": {"size": 0}}})
        account.patch(f"pools.{kind}/one", {"metadata": journal, "spec": {"pool": {"size": 0}}})
        assert size(fleet, kind) == 0
        with pytest.raises(KubectlFailed, match=r"asks for no more at spec\.pool\.size"):
            account.patch(f"pools.{kind}/one", {"spec": {"pool": {"size": 4}}})
        account.patch(f"pools.{kind}/one", {"spec": {"pool": {"size": 3}}})


def size(fleet: Fleet, group: str) -> Any:
    return json.loads(fleet.kubectl("get", f"pools.{group}", "one", "--output=json"))["spec"]["pool"]["size"]


def test_a_place_for_a_kind_that_is_not_looked_after_is_refused(helm: Helm) -> None:
    values = {**MINIMAL, "operator": {"replicasPaths": {"pools.example.com": ".spec.size"}}}
    with pytest.raises(HelmFailed, match=r"names pools\.example\.com, which is not in operator\.kinds"):
        helm.render(values)


@pytest.mark.parametrize("path", ["status.replicas", "spec", "spec['a.b']", "spec.a'] == 1 || ['b"])
def test_a_place_that_is_none_is_refused(helm: Helm, path: str) -> None:
    kinds = ["pools.example.com"]
    with pytest.raises(HelmFailed, match="replicasPaths"):
        helm.render({**MINIMAL, "operator": {"kinds": kinds, "replicasPaths": {kinds[0]: path}}})


def test_nobody_else_is_held_back(account: Account, fleet: Fleet) -> None:
    fleet.kubectl("set", "image", "deployment/one", "worker=another")
    fleet.scale("one", 7)


def test_it_can_be_left_out(helm: Helm) -> None:
    values = {**MINIMAL, "operator": {"admissionPolicy": {"enabled": False}}}
    policies = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    assert [len(helm.render(each).all(*policies)) for each in (MINIMAL, values)] == [2, 0]
