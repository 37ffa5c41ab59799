"""Paths and names of the objects in the API server: pure."""

from __future__ import annotations

from typing import TypeAlias

from openrouter_operator.resource.spec import DEFAULT_CLASS
from openrouter_operator.workloads.workload import FIELD_MANAGER, GROUP, Workload

__all__ = [
    "AUTOSCALERS",
    "CRDS",
    "EVENTS",
    "FINALIZER",
    "RESOURCE",
    "SECRETS",
    "VERSION",
    "Path",
    "every",
    "finalizer_of",
    "is_finalizer",
    "path_as_us",
    "path_of",
    "path_of_lease",
    "path_of_resource",
]

VERSION = "v1alpha1"
Path: TypeAlias = tuple[str, str, str]
"""Group, version and plural of a kind."""
RESOURCE: Path = (GROUP, VERSION, "openrouterstatuses")
FINALIZER = f"{GROUP}/restore"
"""On our own resources: the workloads they have paused come back before they go."""
AUTOSCALERS: Path = ("autoscaling", "v2", "horizontalpodautoscalers")
CRDS: Path = ("apiextensions.k8s.io", "v1", "customresourcedefinitions")
SECRETS: Path = ("", "v1", "secrets")
EVENTS: Path = ("", "v1", "events")


def finalizer_of(resource_class: str) -> str:
    """Return the finalizer of one class.

    Two operators with the same one would remove it from each other's resources for ever.
    """
    return FINALIZER if resource_class == DEFAULT_CLASS else f"{FINALIZER}-{resource_class}"


def is_finalizer(name: str) -> bool:
    """Return whether it is ours, of any class."""
    return name == FINALIZER or name.startswith(f"{FINALIZER}-")


def every(kind: Path, namespace: str) -> str:
    group, version, plural = kind
    where = f"/namespaces/{namespace}" if namespace else ""
    root = f"/apis/{group}" if group else "/api"
    return f"{root}/{version}{where}/{plural}"


def path_of(workload: Workload) -> str:
    return f"{every(workload.kind.path, workload.namespace)}/{workload.name}"


def path_as_us(workload: Workload) -> str:
    return f"{path_of(workload)}?fieldManager={FIELD_MANAGER}"


def path_of_resource(namespace: str, name: str) -> str:
    return f"{every(RESOURCE, namespace)}/{name}"


def path_of_lease(namespace: str) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
