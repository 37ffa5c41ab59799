"""The chart's admission policy alone: the ServiceAccount has all rights here, and still may do no more than pause."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from openrouter_operator.cluster import FINALIZER
from openrouter_operator.kinds import DEPLOYMENT
from openrouter_operator.workload import PAUSED, RELEASED, Pause, Workload, restored
from tests.chart.helm import MINIMAL, Helm, installed
from tests.controlplane import ControlPlane, KubectlFailed
from tests.operator.conftest import Fleet, deployment, resource
from tests.waiting import until

pytestmark = pytest.mark.cluster

MEMORY = Pause("uid-of-owner", "default", epoch=1, original=3, set_to=0, at_s=1_000.0).text()
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
        self._kubeconfig = kubeconfig
        self._namespace = namespace

    def patch(self, what: str, patch: Any, *words: str, kind: str = "merge") -> None:
        place = (f"--namespace={self._namespace}", f"--type={kind}", f"--patch={json.dumps(patch)}")
        self._run("patch", what, *place, *words, kubeconfig=self._kubeconfig)

    def is_held_back(self) -> bool:
        """Whether the policy is in force by now, which takes the API server a moment."""
        try:
            self.patch("deployment/one", {"metadata": {"labels": {"tried": "yes"}}}, "--dry-run=server")
        except KubectlFailed as error:
            return "may change no label" in str(error)
        return False


@pytest.fixture
def account(fleet: Fleet, helm: Helm, control_plane: ControlPlane) -> Iterator[Account]:
    values = {**MINIMAL, "crds": {"install": False}, "operator": {"namespaces": [fleet.namespace]}}
    with installed(helm, control_plane, fleet.namespace, values) as release:
        subject = f"--serviceaccount={fleet.namespace}:{release.service_account}"
        fleet.kubectl("create", "rolebinding", "everything", "--clusterrole=cluster-admin", subject)
        fleet.apply(deployment("one", 3), CRON_JOB, resource(mode="Observe"))
        fleet.kubectl("annotate", "deployment/one", "team=search")
        kubeconfig = control_plane.kubeconfig_for_service_account(fleet.namespace, release.service_account)
        account = Account(control_plane, kubeconfig, fleet.namespace)
        until(account.is_held_back, seconds=20)
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
        "no field of spec but replicas and suspend",
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


def test_nobody_else_is_held_back(account: Account, fleet: Fleet) -> None:
    fleet.kubectl("set", "image", "deployment/one", "worker=another")
    fleet.scale("one", 7)


def test_it_can_be_left_out(helm: Helm) -> None:
    values = {**MINIMAL, "operator": {"admissionPolicy": {"enabled": False}}}
    policies = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    assert [len(helm.render(each).all(*policies)) for each in (MINIMAL, values)] == [2, 0]
