"""The workloads of a namespace that a resource may pause, as the API server has them now."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

from openrouter_operator.kubernetes.cli_cluster import CliCluster
from openrouter_operator.kubernetes.client import Refused
from openrouter_operator.kubernetes.paths import CRDS
from openrouter_operator.resource.spec import Spec
from openrouter_operator.workloads.kinds import BY_NAME, Kind, UnusableKind, from_crd
from openrouter_operator.workloads.workload import Workload

__all__ = ["kinds_of", "listed"]


async def kinds_of(cluster: CliCluster, spec: Spec) -> list[Kind]:
    """Return the kinds that the cluster has: those known without their CRD, and the custom ones that the spec names.

    Without the right to list CRDs there are no custom ones.
    """
    known = [kind for kind in BY_NAME.values() if not kind.has_crd or await cluster.serves(kind.path)]
    if all(any(map(target.is_of, BY_NAME.values())) for target in spec.targets):
        return known
    custom: list[Kind] = []
    with suppress(Refused):
        custom = [kind async for kind in _custom(cluster)]
    return known + [kind for kind in custom if any(target.is_of(kind) for target in spec.targets)]


async def _custom(cluster: CliCluster) -> AsyncIterator[Kind]:
    async for crd in cluster.list(CRDS, ""):
        with suppress(UnusableKind):
            yield from_crd(crd)


async def listed(cluster: CliCluster, kind: Kind, namespace: str) -> AsyncIterator[Workload]:
    async for body in cluster.list(kind.path, namespace):
        yield Workload.of(kind, body)
