"""Deployment tools, each with the requests that it makes to a paused workload.

Helm and kubectl are the programs themselves. Argo CD is built around ``kubectl apply``, so kubectl with its options
makes its requests. Flux applies server-side and always by force.

Sources, in argoproj/argo-cd: ``gitops-engine/pkg/utils/kube/resource_ops.go`` (``newApplyOptions``:
``ForceConflicts = serverSideApply``), ``common/common.go`` (``ArgoCDSSAManager``), ``controller/sync.go``
(``normalizeTargetResources``: an ignored field is written as it is in the cluster). In fluxcd:
``pkg/ssa/manager_apply.go`` (``Apply``: a dry run, and the same again where that differs),
``helm-controller/main.go`` (``ManagedFieldsManager``) and ``internal/action`` there (``ForceConflicts``).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tests.chart.helm import Helm
from tests.operator.conftest import Fleet, deployment
from tests.operator.crashes import one_of

__all__ = ["Body", "Tool", "argo", "flux", "helm", "kubectl", "manifest", "respecting"]

Body: TypeAlias = dict[str, Any]
CHART = {"apiVersion": "v2", "name": "worker", "version": "1.0.0"}


@dataclass(frozen=True, slots=True)
class Tool:
    """Something that deploys: ``apply`` raises an error if it fails.

    Attributes:
        has_a_say: Whether it writes how much is to run, and not what it finds.
    """

    apply: Callable[[Body], object]
    has_a_say: bool = True


def manifest(kind: str, image: str = "worker", amount: int | bool | None = None) -> Body:
    """A workload called ``one``; *amount* is its ``replicas`` or ``suspend``, None to leave that out."""
    body = deployment("one", 1) if kind == "Deployment" else one_of(kind, "one")
    field, pod = ("replicas", body["spec"].get("template")) if kind == "Deployment" else ("suspend", None)
    pod = pod or body["spec"]["jobTemplate"]["spec"]["template"]
    pod["spec"]["containers"][0]["image"] = image
    body["spec"].pop(field, None)
    body["spec"] |= {} if amount is None else {field: amount}
    return body


def kubectl(fleet: Fleet, *words: str) -> Tool:
    def apply(body: Body) -> None:
        fleet.kubectl("apply", "--filename=-", *words, stdin=json.dumps(body))

    return Tool(apply)


def argo(fleet: Fleet, *words: str) -> Tool:
    """Argo CD, with ``ServerSideApply=true`` where *words* say so."""
    return kubectl(fleet, "--field-manager=argocd-controller", *words)


def flux(fleet: Fleet, manager: str) -> Tool:
    """Flux, as one of its controllers."""
    by_force = ("--server-side", "--force-conflicts", f"--field-manager={manager}")

    def apply(body: Body) -> None:
        text = json.dumps(body)
        would = fleet.kubectl("apply", "--filename=-", *by_force, "--dry-run=server", "--output=json", stdin=text)
        name = f"{body['kind'].lower()}/{body['metadata']['name']}"
        live = fleet.kubectl("get", name, "--ignore-not-found", "--output=json")
        if not live or json.loads(live)["spec"] != json.loads(would)["spec"]:
            fleet.kubectl("apply", "--filename=-", *by_force, stdin=text)

    return Tool(apply)


def helm(fleet: Fleet, program: Helm, kubeconfig: Path, folder: Path, *words: str) -> Tool:
    """A release whose only manifest is the one that is applied."""
    templates = folder / "templates"
    templates.mkdir(parents=True)
    (folder / "Chart.yaml").write_text(json.dumps(CHART))
    (templates / "worker.yaml").write_text("{{ toJson .Values.manifest }}")

    def apply(body: Body) -> None:
        where = ("worker", str(folder), f"--namespace={fleet.namespace}", *words)
        program.run("upgrade", "--install", *where, values={"manifest": body}, kubeconfig=kubeconfig)

    return Tool(apply)


def respecting(fleet: Fleet, tool: Tool) -> Tool:
    """Argo CD with ``ignoreDifferences`` and ``RespectIgnoreDifferences=true``: writes what is in the cluster."""

    def apply(body: Body) -> None:
        name = f"{body['kind'].lower()}/{body['metadata']['name']}"
        live = fleet.kubectl("get", name, "--ignore-not-found", "--output=json")
        spec = json.loads(live)["spec"] if live else {}
        ignored = {field: spec[field] for field in ("replicas", "suspend") if field in spec and field in body["spec"]}
        tool.apply({**body, "spec": body["spec"] | ignored})

    return Tool(apply, has_a_say=False)
