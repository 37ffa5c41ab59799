"""Checks the cluster: the CRD, the rights of these credentials verb by verb, the admission policy and the Lease."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from typing import Any

from openrouter_guard.cli.cluster.where import connected
from openrouter_guard.cli.console.times import length
from openrouter_guard.errors import ConfigurationError
from openrouter_guard.rules.codec import parse_iso
from openrouter_operator.kubernetes.cli_cluster import CliCluster
from openrouter_operator.kubernetes.client import ClusterError, NotFound, Refused
from openrouter_operator.kubernetes.own_crd import own_crd
from openrouter_operator.kubernetes.paths import AUTOSCALERS, CRDS, EVENTS, RESOURCE, Path
from openrouter_operator.settings import OperatorSettings
from openrouter_operator.workloads.kinds import BY_NAME

from .checks import Check, failed, ok, skipped, warning

__all__ = ["checked_cluster"]

AREA = "kubernetes"
OLDEST = (1, 30)
_LEASES: Path = ("coordination.k8s.io", "v1", "leases")
_POLICIES: Path = ("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies")
_REPLICA_SETS: Path = ("apps", "v1", "replicasets")
_INSTALL = "install the chart, or kubectl apply -f crds/"


async def checked_cluster(settings: OperatorSettings) -> AsyncIterator[Check]:
    """Yield the checks of the cluster that the operator's settings are for."""
    try:
        connection = await connected()
    except ConfigurationError as error:
        # Without KUBECONFIG there may be no cluster at all.
        is_meant = bool(os.environ.get("KUBECONFIG"))
        told = failed if is_meant else skipped
        yield told(AREA, "reachable", str(error), "correct KUBECONFIG" if is_meant else "set KUBECONFIG to check one")
        return
    async with connection as cluster:
        try:
            yield _version(cluster, await cluster.version())
        except ClusterError as error:
            yield failed(AREA, "reachable", str(error), "check KUBECONFIG, the network and your credentials")
            return
        try:
            async for check in _of(cluster, settings):
                yield check
        except ClusterError as error:
            yield failed(AREA, "checks", str(error), "try again; the other checks of the cluster were not made")


async def _of(cluster: CliCluster, settings: OperatorSettings) -> AsyncIterator[Check]:
    yield await _crd(cluster)
    async for check in _rights(cluster, settings):
        yield check
    yield await _policy(cluster)
    yield await _lease(cluster, settings)


def _version(cluster: CliCluster, version: str) -> Check:
    numbers = [part for part in version.lstrip("v").split(".")[:2] if part.isdecimal()]
    found = f"{cluster.host}, {version}"
    if len(numbers) == 2 and tuple(map(int, numbers)) < OLDEST:
        return failed(AREA, "reachable", found, "use Kubernetes 1.30 or newer")
    return ok(AREA, "reachable", found)


async def _crd(cluster: CliCluster) -> Check:
    """Whether the CRD is there, and knows all fields that this version writes."""
    try:
        crd = await cluster.get(CRDS, "", f"{RESOURCE[2]}.{RESOURCE[0]}")
    except NotFound:
        return failed(AREA, "crd", "OpenRouterStatus is not installed", _INSTALL)
    except ClusterError:
        is_there = await cluster.is_installed()
        found = "installed; its schema may not be read" if is_there else "OpenRouterStatus is not installed"
        return ok(AREA, "crd", found) if is_there else failed(AREA, "crd", found, _INSTALL)
    lacking = sorted(_fields(own_crd()) - _fields(crd))
    if lacking:
        return warning(AREA, "crd", f"older than this version: lacks {', '.join(lacking)}", _INSTALL)
    return ok(AREA, "crd", f"installed, {', '.join(each['name'] for each in crd['spec']['versions'])}")


def _fields(crd: Mapping[str, Any]) -> set[str]:
    """Return the paths of the spec and the status that the CRD knows, two levels deep."""
    found: set[str] = set()
    for version in crd["spec"]["versions"]:
        schema = version["schema"]["openAPIV3Schema"]["properties"]
        for part in ("spec", "status"):
            found |= {f"{part}.{name}" for name in schema.get(part, {}).get("properties", {})}
    return found


async def _rights(cluster: CliCluster, settings: OperatorSettings) -> AsyncIterator[Check]:
    """Yield one check for each kind; the credentials are those of this process: in the operator's pod, its own."""
    for namespace in settings.namespaces or ("",):
        where = f" in {namespace}" if namespace else " everywhere"
        for kind, verbs, subresource in _wanted(settings):
            what = "/".join(filter(None, (kind[2], subresource)))
            lacking = [v for v in verbs if not await cluster.may(v, kind, namespace, subresource=subresource)]
            if lacking:
                advice = "give the operator the rights of the chart; from a laptop, this checks your own"
                yield failed(AREA, f"rights on {what}", f"may not {', '.join(lacking)}{where}", advice)
            else:
                yield ok(AREA, f"rights on {what}", f"{', '.join(verbs)}{where}")
    lease, place = ("get", "update"), settings.lease_namespace
    refused = [v for v in lease if not await cluster.may(v, _LEASES, place, name=settings.lease_name)]
    refused += [] if await cluster.may("create", _LEASES, place) else ["create"]
    if refused:
        yield failed(AREA, "rights on leases", f"may not {', '.join(refused)} in {place}", "apply the chart's Role")
    else:
        yield ok(AREA, "rights on leases", f"get, update, create in {place}")


def _wanted(settings: OperatorSettings) -> list[tuple[Path, tuple[str, ...], str]]:
    kinds = [BY_NAME[name].path for name in settings.kinds if name in BY_NAME]
    return [
        (RESOURCE, ("get", "list", "watch", "patch"), ""),
        (RESOURCE, ("update",), "status"),
        *((kind, ("get", "list", "watch", "patch"), "") for kind in kinds),
        (_REPLICA_SETS, ("list", "patch"), ""),
        (AUTOSCALERS, ("list", "watch"), ""),
        (EVENTS, ("create",), ""),
    ]


async def _policy(cluster: CliCluster) -> Check:
    name = "admission policy"
    try:
        found = [each["metadata"]["name"] async for each in cluster.list(_POLICIES, "")]
    except Refused:
        return skipped(AREA, name, "these credentials may not list ValidatingAdmissionPolicies")
    except ClusterError as error:
        return skipped(AREA, name, str(error))
    ours = [each for each in found if "openrouter-guard" in each]
    if ours:
        return ok(AREA, name, ", ".join(ours))
    advice = "the chart's operator.admissionPolicy limits the operator to replicas, suspend and its annotations"
    return warning(AREA, name, "there is none of this product", advice)


async def _lease(cluster: CliCluster, settings: OperatorSettings) -> Check:
    where = f"{settings.lease_namespace}/{settings.lease_name}"
    try:
        spec = (await cluster.lease(settings.lease_namespace, settings.lease_name))["spec"]
    except NotFound:
        advice = "start an operator, or name its Lease: OPENROUTER_GUARD_LEASE_NAMESPACE, OPENROUTER_GUARD_LEASE_NAME"
        return warning(AREA, "lease", f"there is no Lease {where}: no operator has run", advice)
    except ClusterError as error:
        return skipped(AREA, "lease", str(error))
    age_s = cluster.now - parse_iso(str(spec.get("renewTime")))
    holder = spec.get("holderIdentity") or "nobody"
    if holder != "nobody" and age_s <= 2 * float(spec.get("leaseDurationSeconds") or settings.lease_s):
        return ok(AREA, "lease", f"{where} is held by {holder}")
    return failed(AREA, "lease", f"{where}: {holder} renewed it {length(age_s)} ago", "look at the operator's log")
