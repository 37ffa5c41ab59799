"""``helm uninstall`` while workloads are paused: they are restored, and no finalizer blocks a resource."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from openrouter_operator.workloads.kinds import DEFAULT
from openrouter_operator.workloads.workload import PAUSED, Pause
from tests.chart.helm import CHART, MINIMAL, Helm, installed
from tests.chart.test_manifests import rules
from tests.cli.commands import run
from tests.controlplane import ControlPlane
from tests.operator.conftest import Fleet, deployment, resource
from tests.operator.crashes import one_of
from tests.operator.proxy import Proxy, SyncProxy
from tests.operator.test_every_kind import level
from tests.operator.test_rights import each_meets_a_conflict, roles, used
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

NAME = "openrouter-guard-operator-restore"
LAST = f"{NAME}-last"


def test_what_it_has_paused_comes_back_and_what_others_have_paused_stays(
    fleet: Fleet, start: Any, helm: Helm, control_plane: ControlPlane, tmp_path: Path
) -> None:
    values = {**MINIMAL, "crds": {"install": False}, "operator": {"namespaces": [fleet.namespace]}}
    with installed(helm, control_plane, fleet.namespace, values) as release:
        kubeconfig = control_plane.kubeconfig_for_service_account(fleet.namespace, release.service_account)
        operator = start(kubeconfig, OPENROUTER_GUARD_LEASE_NAME=release.operator)
        fleet.apply(*(one_of(kind, "worker") for kind in DEFAULT))
        before = levels(fleet)
        fleet.watch(targets=[{"kind": kind, "name": "worker"} for kind in DEFAULT])
        fleet.force("forced_open")
        until(lambda: fleet.status()["targets"]["summary"] == "4/4", seconds=20)
        paused_by_another_class(fleet)
        with uninstalling(helm, control_plane, fleet.namespace) as done:
            until(lambda: job_is_there(fleet, NAME), seconds=20)
            assert levels(fleet) != before
            granted = granted_to_restore(fleet, control_plane)
            assert "released: OpenRouterStatus/default" in carry_out(fleet, control_plane, tmp_path, NAME)
            # All of the release is still there, and its operator has ended: the kubelet starts it again.
            assert release.operator in fleet.deployments()
            until(lambda: operator.has_ended, seconds=30)
            again = start(kubeconfig, OPENROUTER_GUARD_LEASE_NAME=release.operator)
            until(lambda: "waiting for the lease" in again.said(), seconds=30)
            assert levels(fleet) == before
            until(lambda: completes(fleet, NAME), seconds=20)
            until(lambda: release.operator not in fleet.deployments(), seconds=20)
            again.stop()
            until(lambda: job_is_there(fleet, LAST), seconds=20)
            carry_out(fleet, control_plane, tmp_path, LAST)
            until(lambda: completes(fleet, LAST), seconds=20)
            done.result(30)
    assert used(control_plane, fleet.namespace, NAME) == granted
    assert levels(fleet) == before
    assert fleet.replicas()["theirs"] == 0
    assert release.operator not in fleet.kubectl("get", "leases", "--output=name")
    (ready,) = fleet.status()["conditions"]
    assert (ready["type"], ready["status"], ready["reason"]) == ("Ready", "False", "OperatorGone")
    assert fleet.status().keys() == {"conditions"}
    fleet.unwatch("default", "--timeout=10s")
    left = "serviceaccount,role,rolebinding,job"
    assert NAME not in fleet.kubectl("get", left, "--selector=app.kubernetes.io/component=restore", "--output=name")


def job_is_there(fleet: Fleet, name: str) -> bool:
    return "job" in fleet.kubectl("get", "job", name, "--ignore-not-found", "--output=name")


def granted_to_restore(fleet: Fleet, control_plane: ControlPlane) -> set[tuple[str, str, str]]:
    """The rights of the Job: not those of the operator, which are still there."""
    found = roles(control_plane, fleet.namespace)
    ours = [role for role in found if role["metadata"]["labels"]["app.kubernetes.io/component"] == "restore"]
    return set().union(*(rules(role) for role in ours))


def levels(fleet: Fleet) -> dict[str, Any]:
    found = json.loads(fleet.kubectl("get", "deploy,sts,cronjob,job", "--output=json"))["items"]
    return {item["kind"]: level(item) for item in found if item["metadata"]["name"] == "worker"}


def paused_by_another_class(fleet: Fleet) -> None:
    """A workload that another operator looks after."""
    other: dict[str, Any] = {"class": "another", "targets": [{"kind": "Deployment", "name": "theirs"}]}
    fleet.apply(resource("other", **other))
    uid = json.loads(fleet.kubectl("get", "ors", "other", "--output=json"))["metadata"]["uid"]
    theirs = deployment("theirs", 0)
    journal = Pause(uid, "other", epoch=1, original=3, set_to=0, at=1_000.0).text()
    theirs["metadata"]["annotations"] = {PAUSED: journal}
    fleet.apply(theirs)


@contextmanager
def uninstalling(helm: Helm, control_plane: ControlPlane, namespace: str) -> Iterator[Future[str]]:
    """Helm waits for the Job of the hook."""
    words = ("uninstall", "openrouter-guard", f"--namespace={namespace}", "--timeout=120s")
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(helm.run, *words, kubeconfig=control_plane.kubeconfig)


def carry_out(fleet: Fleet, control_plane: ControlPlane, tmp_path: Path, job: str) -> str:
    """Do what the pod of the Job would do, by its arguments, as its ServiceAccount; returns what it says."""
    pod = json.loads(fleet.kubectl("get", "job", job, "--output=json"))["spec"]["template"]["spec"]
    token = fleet.kubectl("create", "token", pod["serviceAccountName"]).strip()
    with SyncProxy(Proxy(control_plane, tmp_path / "restore.kubeconfig", token=token)) as proxy:
        proxy.rule = each_meets_a_conflict()
        done = run(*pod["containers"][0]["args"], KUBECONFIG=str(proxy.kubeconfig))
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout


def completes(fleet: Fleet, job: str) -> bool:
    """Let the pod of the Job end well, as the kubelet would say; whether there is one."""
    pods = fleet.kubectl("get", "pods", f"--selector=job-name={job}", "--output=name").split()
    for pod in pods:
        fleet.kubectl("patch", pod, "--subresource=status", '--patch={"status": {"phase": "Succeeded"}}')
    return bool(pods)


def test_it_can_be_left_out(helm: Helm) -> None:
    values = {**MINIMAL, "operator": {"restoreOnUninstall": False}}
    shown = [helm.run("template", "guard", str(CHART), values=each) for each in (MINIMAL, values)]
    assert ["post-delete" in each for each in shown] == [True, False]


def test_for_the_whole_cluster_and_custom_kinds_it_may_do_as_much_and_no_more(helm: Helm) -> None:
    kinds = ["Deployment", "ScaledJob", "rollouts.argoproj.io"]
    text = helm.run("template", "guard", str(CHART), values={**MINIMAL, "operator": {"kinds": kinds}})
    hooks = [
        each
        for each in yaml.safe_load_all(text)
        if each and "helm.sh/hook" in each["metadata"].get("annotations", {})
    ]
    hooks = [each for each in hooks if "delete" in each["metadata"]["annotations"]["helm.sh/hook"]]
    kinds_of_hooks = {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "Job"}
    assert {each["kind"] for each in hooks} == kinds_of_hooks
    (role,) = (each for each in hooks if each["kind"] == "ClusterRole")
    workloads = (("apps", "deployments"), ("keda.sh", "scaledjobs"), ("argoproj.io", "rollouts"))
    assert rules(role) == {
        *((group, plural, verb) for group, plural in workloads for verb in ("get", "list", "patch")),
        *(("openrouter-guard.io", "openrouterstatuses", verb) for verb in ("get", "list", "patch")),
        ("openrouter-guard.io", "openrouterstatuses/status", "update"),
        ("apiextensions.k8s.io", "customresourcedefinitions", "get"),
        ("apps", "replicasets", "list"),
    }
    jobs = {
        each["metadata"]["annotations"]["helm.sh/hook"]: each["spec"]["template"]["spec"]["containers"][0]["args"]
        for each in hooks
        if each["kind"] == "Job"
    }
    lease = "default/guard-openrouter-guard-operator"
    rest = ["--ignore-not-found", "--class=default", *(f"--kind={kind}" for kind in kinds), "--all-namespaces"]
    assert jobs == {
        "pre-delete": ["rescue", f"--take-lease={lease}", *rest],
        "post-delete": ["rescue", f"--delete-lease={lease}", *rest],
    }
