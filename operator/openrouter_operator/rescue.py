"""``openrouter-guard rescue``: everything paused comes back as it was, with the operator gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from .cluster import CRDS, RESOURCE, Cluster, ClusterError, Conflict, NotFound, is_finalizer
from .handed_down import EVERYWHERE, REPLICA_SETS, Copy, newest
from .kinds import BY_NAME, Kind, UnusableKind, from_crd
from .spec import DEFAULT_CLASS
from .workload import Workload, restored

__all__ = ["EVERYWHERE", "Fate", "Finding", "Only", "rescue"]

Others: TypeAlias = frozenset[str] | None
_TRIES = 5
_WITHOUT_COPIES = frozenset(kind for name, kind in BY_NAME.items() if name != "Deployment")
"""The kinds that hand no annotations down; of a custom kind nobody knows."""
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


@dataclass(frozen=True, slots=True)
class Only:
    """What alone is to be rescued.

    Attributes:
        kinds: Kinds of workloads, as in the operator's settings; none means every kind that there is.
        resource_class: Whose operator is gone for good: only what its resources, or vanished ones, have paused, and
            all of its resources are let go; empty for what any operator has paused.
    """

    kinds: Sequence[str] = ()
    resource_class: str = ""


async def rescue(
    cluster: Cluster, namespaces: Sequence[str], *, dry_run: bool = False, only: Only = Only()
) -> AsyncIterator[Finding]:
    """Restore all that is paused in these namespaces, or :data:`EVERYWHERE`, and tell of each.

    What a person has changed since stands, and only forgets that it was paused. A resource whose deletion waits for
    an operator is let go afterwards.
    """
    kinds = [*_known(only), *await _custom(cluster, only)]
    for namespace in namespaces:
        try:
            others = await _of_others(cluster, namespace, only)
        except ClusterError as error:
            yield _unlisted(RESOURCE[2], namespace, error)
            continue
        for kind in kinds:
            async for finding in _workloads(cluster, kind, namespace, dry_run, others):
                yield finding
        async for finding in _resources(cluster, namespace, dry_run, only):
            yield finding


def _known(only: Only) -> list[Kind]:
    return [kind for name, kind in BY_NAME.items() if name in (only.kinds or BY_NAME)]


async def _custom(cluster: Cluster, only: Only) -> list[Kind]:
    """The other kinds that have a ``scale`` subresource; none where we may not look at CRDs."""
    found = []
    with suppress(ClusterError):
        async for crd in _crds(cluster, only):
            with suppress(UnusableKind):
                found.append(from_crd(crd))
    return found


async def _crds(cluster: Cluster, only: Only) -> AsyncIterator[Mapping[str, Any]]:
    if not only.kinds:
        async for crd in cluster.list(CRDS, EVERYWHERE):
            yield crd
    for name in (name for name in only.kinds if name not in BY_NAME):
        with suppress(NotFound):
            yield await cluster.crd(name)


async def _of_others(cluster: Cluster, namespace: str, only: Only) -> Others:
    """Whose pauses are not ours to end, by UID; None where every pause is."""
    if not only.resource_class:
        return None
    try:
        found = [body async for body in cluster.list(RESOURCE, namespace)]
    except NotFound:
        return frozenset()  # the CRD is gone, and with it every resource
    return frozenset(body["metadata"]["uid"] for body in found if not _is_of(only.resource_class, body))


def _is_of(resource_class: str, body: Mapping[str, Any]) -> bool:
    return bool((body.get("spec") or {}).get("class", DEFAULT_CLASS) == resource_class)


def _unlisted(plural: str, namespace: str, error: ClusterError) -> Finding:
    return Finding(Fate.FAILED, f"{plural} in {namespace or 'all namespaces'}", str(error))


# -- workloads ------------------------------------------------------------------------------------------------------


async def _workloads(
    cluster: Cluster, kind: Kind, namespace: str, dry_run: bool, others: Others
) -> AsyncIterator[Finding]:
    workloads: list[Workload] = []
    try:
        async for body in cluster.list(kind.path, namespace):
            workload = Workload.of(kind, body)
            if (workload.damage or workload.pause or workload.copied) and _is_ours(workload, others):
                workloads.append(workload)
    except NotFound:
        return  # this cluster does not know the kind
    except ClusterError as error:
        yield _unlisted(kind.plural, namespace, error)
    copies = await _copies(cluster, namespace) if workloads and kind not in _WITHOUT_COPIES else []
    for first in range(0, len(workloads), _AT_ONCE):
        some = workloads[first : first + _AT_ONCE]
        for finding in await asyncio.gather(*(_restore(cluster, workload, copies, dry_run) for workload in some)):
            yield finding


async def _copies(cluster: Cluster, namespace: str) -> list[Copy]:
    """What is left on ReplicaSets: an undone rollout may have put an earlier annotation onto the workload itself."""
    with suppress(ClusterError):
        found = [Copy.of(body) async for body in cluster.metadata(REPLICA_SETS.path, namespace)]
        return [copy for copy in found if copy]
    return []


def _is_ours(workload: Workload, others: Others) -> bool:
    """Whether to restore it; what was left paused on purpose waits for a person, who does not name a class."""
    if others is None or workload.pause is None:
        return True
    return workload.pause.owner_uid not in others and not workload.pause.is_orphaned


async def _restore(cluster: Cluster, workload: Workload, copies: Sequence[Copy], dry_run: bool) -> Finding:
    what = f"{workload} in {workload.namespace}"
    try:
        for _ in range(_TRIES):
            change = restored(newest(workload, copies))
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


# -- resources whose deletion waits for an operator, or would -------------------------------------------------------


async def _resources(cluster: Cluster, namespace: str, dry_run: bool, only: Only) -> AsyncIterator[Finding]:
    try:
        waiting = [body async for body in cluster.list(RESOURCE, namespace) if _waits(body, only)]
    except NotFound:
        return  # the CRD is gone, and what it stood for with it
    except ClusterError as error:
        yield _unlisted(RESOURCE[2], namespace, error)
        return
    for body in waiting:
        yield await _let_go(cluster, body, dry_run)


def _waits(body: Mapping[str, Any], only: Only) -> bool:
    metadata = body["metadata"]
    if not any(map(is_finalizer, metadata.get("finalizers", ()))):
        return False
    if only.resource_class:
        return _is_of(only.resource_class, body)
    return bool(metadata.get("deletionTimestamp"))


async def _let_go(cluster: Cluster, body: Mapping[str, Any], dry_run: bool) -> Finding:
    what = f"OpenRouterStatus/{body['metadata']['name']} in {body['metadata']['namespace']}"
    try:
        if not dry_run:
            await cluster.let_go(body)
    except NotFound:
        pass
    except ClusterError as error:
        return Finding(Fate.FAILED, what, str(error))
    return Finding(Fate.LET_GO, what, _why_let_go(body))


def _why_let_go(body: Mapping[str, Any]) -> str:
    waited = body["metadata"].get("deletionTimestamp")
    return "its deletion waited for an operator" if waited else "its operator is gone"
