"""Minimal stand-ins for other projects' CRDs, which the real API server accepts."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from tests.controlplane import ControlPlane
from tests.waiting import until

__all__ = ["add", "crd", "install", "pool", "remove", "rollout", "scaled"]

_ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def install(control_plane: ControlPlane) -> None:
    """KEDA's ScaledObject and ScaledJob, and Argo's Rollout with its scale subresource."""
    for each in _crds():
        add(control_plane, each)


def remove(control_plane: ControlPlane) -> None:
    """Take away the kinds that :func:`install` left in a shared control plane; returns once nobody sees them."""
    names = [each["metadata"]["name"] for each in _crds()]
    control_plane.kubectl("delete", "crd", "--ignore-not-found", *names)
    until(lambda: not {"keda.sh", "argoproj.io"} & _groups(control_plane))


def _crds() -> list[dict[str, Any]]:
    return [
        crd("keda.sh", "v1alpha1", "ScaledObject"),
        crd("keda.sh", "v1alpha1", "ScaledJob"),
        crd("argoproj.io", "v1alpha1", "Rollout", ".spec.replicas"),
    ]


def _groups(control_plane: ControlPlane) -> set[str]:
    found = json.loads(control_plane.kubectl("get", "--raw=/apis"))
    return {group["name"] for group in found["groups"]}


def add(control_plane: ControlPlane, crd: dict[str, Any]) -> None:
    """Install a CRD; returns once its objects can be made."""
    control_plane.kubectl("apply", "--filename=-", input=json.dumps(crd))
    until(partial(_is_established, control_plane, crd["metadata"]["name"]))


def rollout(name: str, **spec: Any) -> dict[str, Any]:
    return _object("argoproj.io/v1alpha1", "Rollout", name, spec)


def pool(group: str, name: str, size: int) -> dict[str, Any]:
    """One of a kind that keeps its replicas at ``spec.pool.size``."""
    return _object(f"{group}/v1", "Pool", name, {"pool": {"size": size, "zone": "a"}, "image": "worker"})


def scaled(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    """A ScaledObject or a ScaledJob."""
    return _object("keda.sh/v1alpha1", kind, name, spec)


def _object(api_version: str, kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"fleet": "workers"}}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}


def crd(group: str, version: str, kind: str, replicas_path: str = "") -> dict[str, Any]:
    """A CRD whose objects hold anything; with a path, one with a scale subresource."""
    scale = {"specReplicasPath": replicas_path, "statusReplicasPath": ".status.replicas"}
    subresources = {"scale": scale} if replicas_path else {}
    plural = f"{kind.lower()}s"
    schema = {"type": "object", "properties": {"spec": _ANYTHING, "status": _ANYTHING}}
    served = {
        "name": version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": subresources,
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
