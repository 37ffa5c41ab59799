"""The values in ``ci/``: each is rendered, and installed on a real API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.helm import CHART, CRD, Helm, wait_for_crd
from tests.controlplane import ControlPlane
from tests.waiting import until

pytestmark = pytest.mark.slow

FILES = sorted((CHART / "ci").glob("*-values.yaml"))
EACH = pytest.mark.parametrize("values", FILES, ids=lambda path: path.stem.removesuffix("-values"))
FOREIGN = {
    "monitoring.coreos.com/v1": ["ServiceMonitor", "PodMonitor"],
    "gateway.networking.k8s.io/v1": ["HTTPRoute"],
    "cert-manager.io/v1": ["Certificate"],
}
"""Kinds that others bring."""


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found


def foreign_crd(api_version: str, kind: str) -> dict[str, Any]:
    """As much of it as it takes to make objects."""
    group, _, version = api_version.partition("/")
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    served = {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": kind, "plural": f"{kind.lower()}s", "singular": kind.lower(), "listKind": f"{kind}List"}
    approved = {"api-approved.kubernetes.io": "unapproved, for tests"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names['plural']}.{group}", "annotations": approved},
        "spec": {"group": group, "names": names, "scope": "Namespaced", "versions": [served]},
    }


@EACH
def test_it_passes_lint_and_makes_each_object_once(helm: Helm, values: Path) -> None:
    assert "0 chart(s) failed" in helm.run("lint", "--strict", str(CHART), values=read(values))
    objects = helm.render_all(read(values)).objects
    names = [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in objects]
    assert len(names) == len(set(names))


@pytest.fixture(scope="module")
def cluster() -> Iterator[ControlPlane]:
    """One where nobody has installed the CRD."""
    with ControlPlane() as ours:
        ours.kubectl("create", "namespace", "guard")
        for version, kinds in FOREIGN.items():
            for kind in kinds:
                crd = foreign_crd(version, kind)
                ours.kubectl("apply", "--filename=-", input=json.dumps(crd))
                wait_for_crd(ours, crd["metadata"]["name"])
        yield ours


@pytest.mark.cluster
@pytest.mark.usefixtures("control_plane")
@EACH
def test_a_real_api_server_takes_all_of_it_and_lets_it_go(helm: Helm, cluster: ControlPlane, values: Path) -> None:
    wanted = read(values)
    if wanted.get("crds", {}).get("install") is False:
        cluster.apply(CRD)
    where = ("openrouter-guard", "--namespace=guard")
    helm.run("install", *where, str(CHART), values=wanted, kubeconfig=cluster.kubeconfig)
    made = {each["kind"] for each in helm.render(wanted).objects}
    stored = {
        each["kind"]
        for each in yaml.safe_load_all(helm.run("get", "manifest", *where, kubeconfig=cluster.kubeconfig))
        if each
    }
    assert stored == made
    helm.run("uninstall", *where, "--no-hooks", kubeconfig=cluster.kubeconfig)
    gone = "deployments,services,configmaps,networkpolicies,poddisruptionbudgets,horizontalpodautoscalers"
    ours = ("--selector=app.kubernetes.io/part-of=openrouter-guard", "--namespace=guard", "--output=name")
    until(lambda: not cluster.kubectl("get", gone, *ours), seconds=20)
