"""``helm uninstall`` while workloads are paused: they come back, and nothing is left that holds a resource back."""

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


def test_what_it_has_paused_comes_back_and_what_others_have_paused_stays(
    fleet: Fleet, start: Any, helm: Helm, control_plane: ControlPlane, tmp_path: Path
) -> None:
    values = {**MINIMAL, "crds": {"install": False}, "operator": {"namespaces": [fleet.namespace]}}
    with installed(helm, control_plane, fleet.namespace, values) as release:
        operator = start(control_plane.kubeconfig_for_service_account(fleet.namespace, release.service_account))
        fleet.apply(*(one_of(kind, "worker") for kind in DEFAULT))
        before = levels(fleet)
        fleet.watch(targets=[{"kind": kind, "name": "worker"} for kind in DEFAULT])
        fleet.force("forced_open")
        until(lambda: fleet.status()["targets"]["summary"] == "4/4")
        paused_by_another_class(fleet)
        with uninstalling(helm, control_plane, fleet.namespace) as done:
            until(lambda: release.operator not in fleet.deployments())
            operator.stop()  # as the kubelet does
            until(lambda: "job" in fleet.kubectl("get", "job", NAME, "--ignore-not-found", "--output=name"))
            assert levels(fleet) != before
            granted = set().union(*(rules(role) for role in roles(control_plane, fleet.namespace)))
            carry_out(fleet, control_plane, tmp_path)
            until(lambda: completes(fleet))
            done.result(30)
    assert used(control_plane, fleet.namespace, NAME) == granted
    assert levels(fleet) == before
    assert fleet.replicas()["theirs"] == 0
    fleet.unwatch("default", "--timeout=10s")
    left = "serviceaccount,role,rolebinding,job"
    assert NAME not in fleet.kubectl("get", left, "--selector=app.kubernetes.io/component=restore", "--output=name")


def levels(fleet: Fleet) -> dict[str, Any]:
    found = json.loads(fleet.kubectl("get", "deploy,sts,cronjob,job", "--output=json"))["items"]
    return {item["kind"]: level(item) for item in found if item["metadata"]["name"] == "worker"}


def paused_by_another_class(fleet: Fleet) -> None:
    """A workload that another operator looks after."""
    other: dict[str, Any] = {"class": "another", "targets": [{"kind": "Deployment", "name": "theirs"}]}
    fleet.apply(resource("other", **other))
    uid = json.loads(fleet.kubectl("get", "ors", "other", "--output=json"))["metadata"]["uid"]
    theirs = deployment("theirs", 0)
    journal = Pause(uid, "other", epoch=1, original=3, set_to=0, at_s=1_000.0).text()
    theirs["metadata"]["annotations"] = {PAUSED: journal}
    fleet.apply(theirs)


@contextmanager
def uninstalling(helm: Helm, control_plane: ControlPlane, namespace: str) -> Iterator[Future[str]]:
    """Helm waits for the Job of the hook."""
    words = ("uninstall", "openrouter-guard", f"--namespace={namespace}", "--timeout=60s")
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(helm.run, *words, kubeconfig=control_plane.kubeconfig)


def carry_out(fleet: Fleet, control_plane: ControlPlane, tmp_path: Path) -> None:
    """Do what the pod of the Job would do, by its arguments, as its ServiceAccount."""
    pod = json.loads(fleet.kubectl("get", "job", NAME, "--output=json"))["spec"]["template"]["spec"]
    token = fleet.kubectl("create", "token", pod["serviceAccountName"]).strip()
    with SyncProxy(Proxy(control_plane, tmp_path / "restore.kubeconfig", token=token)) as proxy:
        proxy.rule = each_meets_a_conflict()
        done = run(*pod["containers"][0]["args"], KUBECONFIG=str(proxy.kubeconfig))
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "let go: OpenRouterStatus/default" in done.stdout


def completes(fleet: Fleet) -> bool:
    """Let the pod of the Job end well, as the kubelet would say; whether there is one."""
    pods = fleet.kubectl("get", "pods", f"--selector=job-name={NAME}", "--output=name").split()
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
    assert {each["kind"] for each in hooks} == {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Job"}
    (role,) = (each for each in hooks if each["kind"] == "ClusterRole")
    workloads = (("apps", "deployments"), ("keda.sh", "scaledjobs"), ("argoproj.io", "rollouts"))
    assert rules(role) == {
        *((group, plural, verb) for group, plural in workloads for verb in ("get", "list", "patch")),
        *(("openrouter-guard.io", "openrouterstatuses", verb) for verb in ("list", "patch")),
        ("apiextensions.k8s.io", "customresourcedefinitions", "get"),
        ("apps", "replicasets", "list"),
    }
    (job,) = (each for each in hooks if each["kind"] == "Job")
    words = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert words == [
        "rescue",
        "--ignore-not-found",
        "--class=default",
        *(f"--kind={kind}" for kind in kinds),
        "--all-namespaces",
    ]
