"""Small stand-ins for the CRDs of others: enough for the real API server to keep their objects."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from tests.controlplane import ControlPlane
from tests.waiting import until

__all__ = ["install", "rollout", "scaled"]

_ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def install(control_plane: ControlPlane) -> None:
    """KEDA's ScaledObject and ScaledJob, and Argo's Rollout with its scale subresource."""
    scale = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
    for crd in (
        _crd("keda.sh", "v1alpha1", "ScaledObject"),
        _crd("keda.sh", "v1alpha1", "ScaledJob"),
        _crd("argoproj.io", "v1alpha1", "Rollout", {"scale": scale}),
    ):
        control_plane.kubectl("apply", "--filename=-", input=json.dumps(crd))
        until(partial(_is_established, control_plane, crd["metadata"]["name"]), seconds=10)


def rollout(name: str, **spec: Any) -> dict[str, Any]:
    return _object("argoproj.io/v1alpha1", "Rollout", name, spec)


def scaled(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    """A ScaledObject or a ScaledJob."""
    return _object("keda.sh/v1alpha1", kind, name, spec)


def _object(api_version: str, kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"fleet": "workers"}}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}


def _crd(group: str, version: str, kind: str, subresources: dict[str, Any] | None = None) -> dict[str, Any]:
    plural = f"{kind.lower()}s"
    schema = {"type": "object", "properties": {"spec": _ANYTHING, "status": _ANYTHING}}
    if subresources:
        replicas = {"type": "object", "properties": {"replicas": {"type": "integer"}}}
        spec = replicas | {"x-kubernetes-preserve-unknown-fields": True}
        schema["properties"] = {"spec": spec, "status": spec}
    served = {
        "name": version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": subresources or {},
    }
    names = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [served]},
    }


def _is_established(control_plane: ControlPlane, name: str) -> bool:
    found = control_plane.get("crd", name).get("status", {}).get("conditions") or []
    return any(each["type"] == "Established" and each["status"] == "True" for each in found)
