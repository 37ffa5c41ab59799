"""The chart on a real API server: admitted, with exactly the rights that it needs, upgraded, and uninstalled."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.helm import CHART, CRD, CRD_NAME, MINIMAL, Helm, HelmFailed, Release, installed, wait_for_crd
from tests.chart.readme import README
from tests.controlplane import ControlPlane, KubectlFailed
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("control_plane")]  # without one: all are skipped

STATUS = """
apiVersion: openrouter-guard.io/v1alpha1
kind: OpenRouterStatus
metadata: {name: default}
spec: {mode: Observe}
"""
GUARD = "openrouter-guard.io"
KINDS = (
    "deployments,services,poddisruptionbudgets,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings"
)

RIGHTS = {
    *((verb, f"{GUARD}/openrouterstatuses") for verb in ("get", "list", "watch", "patch")),
    ("update", f"{GUARD}/openrouterstatuses/status"),
    *(
        (verb, kind)
        for kind in ("apps/deployments", "apps/statefulsets", "batch/cronjobs", "batch/jobs")
        for verb in ("get", "list", "watch", "patch")
    ),
    *((verb, "apps/replicasets") for verb in ("list", "patch")),
    *((verb, "autoscaling/horizontalpodautoscalers") for verb in ("list", "watch")),
    ("create", "/events"),
}
NO_RIGHTS = {
    ("get", "/secrets"),
    ("list", "/namespaces"),
    ("list", "/pods"),
    ("delete", "apps/deployments"),
    ("update", "apps/deployments/scale"),
    ("get", "apps/replicasets"),
    ("delete", "batch/jobs"),
    ("patch", "autoscaling/horizontalpodautoscalers"),
    ("create", f"{GUARD}/openrouterstatuses"),
    ("delete", f"{GUARD}/openrouterstatuses"),
    ("list", "apiextensions.k8s.io/customresourcedefinitions"),
    ("get", "coordination.k8s.io/leases"),
}


def may(
    control_plane: ControlPlane, release: Release, verb: str, resource: str, namespace: str, name: str = ""
) -> bool:
    """Whether the operator may; a resource is written as ``group/resource[/subresource]``."""
    user = f"system:serviceaccount:{release.namespace}:{release.service_account}"
    return can(control_plane, user, verb, resource, namespace, name)


def can(control_plane: ControlPlane, user: str, verb: str, resource: str, namespace: str, name: str = "") -> bool:
    """Whether any user may."""
    group, resource, subresource = (*resource.split("/"), "")[:3]
    action = {"verb": verb, "group": group, "resource": resource, "subresource": subresource}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "resourceAttributes": {**action, "namespace": namespace, "name": name}},
    }
    answer = control_plane.kubectl("create", "--filename=-", "--output=json", input=json.dumps(review))
    return bool(json.loads(answer)["status"]["allowed"])


def objects(control_plane: ControlPlane, release: Release) -> set[str]:
    """Kind and name of what belongs to the release, in the cluster and in its namespace."""
    ours = (f"--selector=app.kubernetes.io/instance={release.name}", f"--namespace={release.namespace}")
    return set(control_plane.kubectl("get", KINDS, *ours, "--output=name").split())


class TestAdmission:
    def test_the_strictest_namespace_takes_all_pods(
        self, helm: Helm, control_plane: ControlPlane, namespace: str
    ) -> None:
        control_plane.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
        with installed(helm, control_plane, namespace, {**MINIMAL, "crds": {"install": False}}):
            until(lambda: len(control_plane.get("pods", f"--namespace={namespace}")["items"]) == 3, seconds=20)


class TestRights:
    def test_it_may_do_its_work_in_any_namespace_and_nothing_else(
        self, control_plane: ControlPlane, release: Release
    ) -> None:
        asked = RIGHTS | NO_RIGHTS
        assert {right for right in asked if may(control_plane, release, *right, namespace="default")} == RIGHTS

    def test_its_own_lease_alone(self, control_plane: ControlPlane, release: Release) -> None:
        leases = "coordination.k8s.io/leases"
        for verb in ("get", "update"):
            assert may(control_plane, release, verb, leases, release.namespace, release.operator)
            assert not may(control_plane, release, verb, leases, release.namespace, "another")
        assert may(control_plane, release, "create", leases, release.namespace)

    def test_the_listed_namespaces_alone(self, helm: Helm, control_plane: ControlPlane, namespace: str) -> None:
        values = {**MINIMAL, "crds": {"install": False}, "operator": {"namespaces": [namespace]}}
        with installed(helm, control_plane, namespace, values) as release:
            assert may(control_plane, release, "patch", "apps/deployments", namespace)
            assert not may(control_plane, release, "get", "apps/deployments", "default")


class TestRightsOfPeople:
    """Whoever has one of the cluster's own roles in a namespace."""

    READ, WRITE = ("get", "list", "watch"), ("create", "update", "patch", "delete")

    @pytest.fixture
    def people(self, helm: Helm, control_plane: ControlPlane, namespace: str) -> Iterator[str]:
        """The namespace in which the user *role* has the ClusterRole *role*."""
        for role in ("view", "edit", "admin"):
            control_plane.kubectl(
                "create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}", f"--namespace={namespace}"
            )
        values = {**MINIMAL, "crds": {"install": False}, "rbac": {"aggregate": {"enabled": "true"}}}
        with installed(helm, control_plane, namespace, values):
            yield namespace

    @pytest.mark.parametrize(
        ("role", "verbs"), [("view", {*READ}), ("edit", {*READ, *WRITE}), ("admin", {*READ, *WRITE})]
    )
    def test_they_may_do_with_resources_what_they_may_do_with_the_rest(
        self, control_plane: ControlPlane, people: str, role: str, verbs: set[str]
    ) -> None:
        def allowed() -> set[str]:
            return {
                verb
                for verb in (*self.READ, *self.WRITE)
                if can(control_plane, role, verb, f"{GUARD}/openrouterstatuses", people)
            }

        until(lambda: allowed() == verbs)  # a controller adds them up
        assert not can(control_plane, role, "list", f"{GUARD}/openrouterstatuses", "default")


class TestHelmTest:
    def test_it_tries_the_crd_with_rights_of_its_own_and_leaves_nothing(
        self, helm: Helm, control_plane: ControlPlane, release: Release, redis_url: str, tmp_path: Path
    ) -> None:
        where, name = f"--namespace={release.namespace}", "openrouter-guard-test"
        with ThreadPoolExecutor(1) as pool:
            words = ("test", release.name, where, "--timeout=120s")
            done = pool.submit(helm.run, *words, kubeconfig=control_plane.kubeconfig)
            until(lambda: control_plane.kubectl("get", "pod", name, where, "--ignore-not-found", "--output=name"))
            (container,) = control_plane.get("pod", name, where)["spec"]["containers"]
            # As the kubelet would, which is not there.
            environ = in_a_pod(control_plane, release.namespace, name, tmp_path)
            environ |= {"REDIS_URL": redis_url, "NAMESPACE": release.namespace}
            script = [sys.executable, "-c", *container["args"]]
            ran = subprocess.run(script, env=environ, capture_output=True, text=True)
            succeeded = '--patch={"status": {"phase": "Succeeded"}}'
            control_plane.kubectl("patch", "pod", name, where, "--subresource=status", succeeded)
            done.result(120)
        assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
        assert "ok: resource: a dry run made helm-test-" in ran.stdout
        assert not control_plane.get("openrouterstatuses", where)["items"]
        left = "serviceaccounts,roles,rolebindings,pods"
        ours = "--selector=app.kubernetes.io/component=test"
        until(lambda: not control_plane.kubectl("get", left, ours, where, "--output=name"))


def in_a_pod(control_plane: ControlPlane, namespace: str, account: str, folder: Path) -> dict[str, str]:
    """The environment in which a pod of the ServiceAccount finds the API server, and its files."""
    cluster = json.loads(control_plane.kubeconfig.read_text())["clusters"][0]["cluster"]
    token = control_plane.kubectl("create", "token", account, f"--namespace={namespace}").strip()
    (folder / "token").write_text(token)
    (folder / "ca.crt").write_bytes(b64decode(cluster["certificate-authority-data"]))
    host, _, port = cluster["server"].removeprefix("https://").rpartition(":")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    service = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    return {"PATH": path, "NO_PROXY": "*", "ACCOUNT": str(folder), **service}


class TestDrift:
    """Argo CD and Flux apply what the chart renders again and again."""

    def test_a_second_sync_by_another_manager_changes_nothing(
        self, helm: Helm, control_plane: ControlPlane, namespace: str
    ) -> None:
        values = {**MINIMAL, "crds": {"install": False}, **EVERYTHING_IN_NAMESPACE}
        where = ("openrouter-guard", str(CHART), f"--namespace={namespace}", "--no-hooks")
        with installed(helm, control_plane, namespace, values):
            first, second = (helm.run("template", *where, values=values) for _ in range(2))
            assert first == second
            other = ("--server-side", "--field-manager=argocd-controller", "--force-conflicts", "--filename=-")
            # It fails where there is a difference.
            assert control_plane.kubectl("diff", *other, input=first) == ""


EVERYTHING_IN_NAMESPACE: dict[str, Any] = {
    "commonLabels": {"team": "platform"},
    "workersConfig": {"enabled": True},
    "healthService": {"autoscaling": {"enabled": True}, "networkPolicy": {"enabled": True}},
    "operator": {"networkPolicy": {"enabled": True}, "replicas": 2},
}


# What follows installs the CRD as a part of the release, on a control plane where nobody else has.


@pytest.fixture(scope="module")
def untouched() -> Iterator[ControlPlane]:
    with ControlPlane() as ours:
        ours.kubectl("create", "namespace", "guard")
        yield ours


@pytest.fixture
def newer_chart(tmp_path: Path) -> Path:
    """The chart with one more column in the CRD."""
    chart = tmp_path / CHART.name
    shutil.copytree(CHART, chart)
    crd = yaml.safe_load(CRD.read_text())
    column = {"name": "Newer", "type": "string", "jsonPath": ".status.newer"}
    crd["spec"]["versions"][0]["additionalPrinterColumns"].append(column)
    (chart / "files" / CRD.name).write_text(yaml.safe_dump(crd))
    return chart


def commands_of_the_readme(beginning: str) -> list[str]:
    """Those in the section on the CRD, each in one line and without what follows in it for people."""
    section = README.read_text().partition("## The CRD")[2].partition("\n## ")[0].replace("\\\n", " ")
    lines = [line.removeprefix("$ ").partition(" …")[0] for line in section.splitlines() if line.startswith("$ ")]
    return [line for line in lines if line.startswith(beginning)]


def columns(control_plane: ControlPlane) -> list[str]:
    crd: dict[str, Any] = control_plane.get("crd", CRD_NAME)
    return [column["name"] for column in crd["spec"]["versions"][0]["additionalPrinterColumns"]]


class TestLife:
    def test_an_upgrade_takes_the_crd_along(self, helm: Helm, untouched: ControlPlane, newer_chart: Path) -> None:
        with installed(helm, untouched, "guard") as release:
            assert "Newer" not in columns(untouched)
            three = {**MINIMAL, "healthService": {"replicas": 3}}
            words = ("upgrade", release.name, str(newer_chart), "--namespace=guard")
            helm.run(*words, values=three, kubeconfig=untouched.kubeconfig)

            assert "Newer" in columns(untouched)
            deployment = untouched.get("deployment", release.health_service, "--namespace=guard")
            assert deployment["spec"]["replicas"] == 3

    def test_what_users_made_outlives_the_release(self, helm: Helm, untouched: ControlPlane) -> None:
        with installed(helm, untouched, "guard") as release:
            wait_for_crd(untouched)
            untouched.kubectl("apply", "--filename=-", "--namespace=guard", input=STATUS)
            assert "deployment.apps/openrouter-guard-operator" in objects(untouched, release)

        until(lambda: not objects(untouched, release))
        assert untouched.get("openrouterstatus", "default", "--namespace=guard")["spec"]["mode"] == "Observe"

    def test_a_release_that_comes_back_takes_up_what_was_kept(self, helm: Helm, untouched: ControlPlane) -> None:
        for _ in range(2):
            with installed(helm, untouched, "guard"):
                assert columns(untouched)

    def test_another_release_is_told_who_owns_the_crd(self, helm: Helm, untouched: ControlPlane) -> None:
        untouched.kubectl("create", "namespace", "other")
        with installed(helm, untouched, "guard"):
            with pytest.raises(HelmFailed, match="openrouterstatuses"), installed(helm, untouched, "other"):
                pass
            with installed(helm, untouched, "other", {**MINIMAL, "crds": {"install": False}}) as second:
                assert "deployment.apps/openrouter-guard" in objects(untouched, second)

    def test_a_crd_that_was_applied_before_is_taken_over_as_the_readme_says(
        self, helm: Helm, untouched: ControlPlane
    ) -> None:
        untouched.kubectl("delete", "crd", CRD_NAME, "--ignore-not-found")
        untouched.apply(CRD)
        with pytest.raises(HelmFailed, match="invalid ownership metadata"), installed(helm, untouched, "guard"):
            pass
        for line in commands_of_the_readme("kubectl "):
            untouched.kubectl(*line.replace("release-namespace=default", "release-namespace=guard").split()[1:])
        with installed(helm, untouched, "guard"):
            assert columns(untouched)

    def test_a_release_of_another_name_takes_up_what_was_kept(self, helm: Helm, untouched: ControlPlane) -> None:
        # Not one that people have marked by hand: kubectl owns the marks of such a CRD.
        untouched.kubectl("delete", "crd", CRD_NAME, "--ignore-not-found")
        with installed(helm, untouched, "guard"):
            wait_for_crd(untouched)
            untouched.kubectl("apply", "--filename=-", "--namespace=guard", input=STATUS)
        (line,) = commands_of_the_readme("helm install")
        where = ("--namespace=guard", f"--kubeconfig={untouched.kubeconfig}")
        words = [word for word in line.split()[1:] if word.startswith("--")]
        helm.run("install", "renamed", str(CHART), *where, *words, values=MINIMAL)
        try:
            crd = untouched.get("crd", CRD_NAME)
            assert crd["metadata"]["annotations"]["meta.helm.sh/release-name"] == "renamed"
            assert untouched.get("openrouterstatus", "default", "--namespace=guard")
        finally:
            helm.run("uninstall", "renamed", "--no-hooks", *where)
            untouched.kubectl("delete", "crd", CRD_NAME)

    def test_a_misspelt_status_is_refused_by_the_installed_crd(self, helm: Helm, untouched: ControlPlane) -> None:
        with installed(helm, untouched, "guard"):
            wait_for_crd(untouched)
            wrong = STATUS.replace("Observe", "Watch")
            with pytest.raises(KubectlFailed, match=r"spec\.mode"):
                untouched.kubectl("apply", "--filename=-", "--namespace=guard", input=wrong)
