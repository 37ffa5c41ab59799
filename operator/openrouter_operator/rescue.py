"""``openrouter-guard rescue``: everything paused comes back as it was, with the operator gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from .cluster import CRDS, RESOURCE, Cluster, ClusterError, Conflict, NotFound, is_finalizer
from .kinds import BY_NAME, Kind, UnusableKind, from_crd
from .workload import Workload, restored

__all__ = ["EVERYWHERE", "Fate", "Finding", "rescue"]

EVERYWHERE = ""
_TRIES = 5
_AT_ONCE = 200


class Fate(StrEnum):
    """What became of something."""

    RESTORED = "restored"
    KEPT = "kept as somebody set it"
    LET_GO = "let go"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; ``why`` is empty where the fate says it all."""

    fate: Fate
    what: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.fate}: {self.what}" + (f": {self.why}" if self.why else "")


async def rescue(cluster: Cluster, namespaces: Sequence[str], *, dry_run: bool = False) -> AsyncIterator[Finding]:
    """Restore all that is paused in these namespaces, or :data:`EVERYWHERE`, and tell of each.

    What a person has changed since stands, and only forgets that it was paused. A resource whose deletion waits for
    an operator is let go afterwards.
    """
    kinds = [*BY_NAME.values(), *await _custom(cluster)]
    for namespace in namespaces:
        for kind in kinds:
            async for finding in _workloads(cluster, kind, namespace, dry_run):
                yield finding
        async for finding in _resources(cluster, namespace, dry_run):
            yield finding


async def _custom(cluster: Cluster) -> list[Kind]:
    """Every other kind that has a ``scale`` subresource; none where we may not look at CRDs."""
    found = []
    with suppress(ClusterError):
        async for crd in cluster.list(CRDS, EVERYWHERE):
            with suppress(UnusableKind):
                found.append(from_crd(crd))
    return found


# -- workloads ------------------------------------------------------------------------------------------------------


async def _workloads(cluster: Cluster, kind: Kind, namespace: str, dry_run: bool) -> AsyncIterator[Finding]:
    workloads: list[Workload] = []
    try:
        async for body in cluster.list(kind.path, namespace):
            workload = Workload.of(kind, body)
            if workload.damage or workload.pause:
                workloads.append(workload)
    except NotFound:
        return  # this cluster does not know the kind
    except ClusterError as error:
        yield Finding(Fate.FAILED, f"{kind.plural} in {namespace or 'all namespaces'}", str(error))
    for first in range(0, len(workloads), _AT_ONCE):
        some = workloads[first : first + _AT_ONCE]
        for finding in await asyncio.gather(*(_restore(cluster, workload, dry_run) for workload in some)):
            yield finding


async def _restore(cluster: Cluster, workload: Workload, dry_run: bool) -> Finding:
    what = f"{workload} in {workload.namespace}"
    try:
        for _ in range(_TRIES):
            change = restored(workload)
            if change is None:
                return _unpaused(what, workload)
            fate = Fate.KEPT if not change.is_written else Fate.RESTORED
            try:
                if not dry_run:
                    await cluster.change(change)
            except Conflict:
                workload = await cluster.workload(workload)
            else:
                return Finding(fate, what)
    except NotFound:
        return Finding(Fate.LET_GO, what, "it is gone")
    except ClusterError as error:
        return Finding(Fate.FAILED, what, str(error))
    return Finding(Fate.FAILED, what, "somebody keeps changing it; run this again")


def _unpaused(what: str, workload: Workload) -> Finding:
    if workload.damage:
        return Finding(Fate.FAILED, what, f"{workload.damage}; set it by hand and remove the annotation")
    return Finding(Fate.RESTORED, what, "by somebody else")


# -- resources whose deletion waits for an operator -----------------------------------------------------------------


async def _resources(cluster: Cluster, namespace: str, dry_run: bool) -> AsyncIterator[Finding]:
    try:
        waiting = [body async for body in cluster.list(RESOURCE, namespace) if _waits(body)]
    except NotFound:
        return  # the CRD is gone, and what it stood for with it
    except ClusterError as error:
        yield Finding(Fate.FAILED, f"{RESOURCE[2]} in {namespace or 'all namespaces'}", str(error))
        return
    for body in waiting:
        yield await _let_go(cluster, body, dry_run)


def _waits(body: Mapping[str, Any]) -> bool:
    metadata = body["metadata"]
    return bool(metadata.get("deletionTimestamp")) and any(map(is_finalizer, metadata.get("finalizers", ())))


async def _let_go(cluster: Cluster, body: Mapping[str, Any], dry_run: bool) -> Finding:
    what = f"OpenRouterStatus/{body['metadata']['name']} in {body['metadata']['namespace']}"
    try:
        if not dry_run:
            await cluster.let_go(body)
    except NotFound:
        pass
    except ClusterError as error:
        return Finding(Fate.FAILED, what, str(error))
    return Finding(Fate.LET_GO, what, "its deletion waited for an operator")
