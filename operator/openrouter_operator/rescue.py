"""``openrouter-guard rescue``: brings everything paused back as it was, without the operator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeAlias

from openrouter_guard.errors import ConfigurationError
from openrouter_guard.variables import nearest

from .controller.leftovers import EVERYWHERE, REPLICA_SETS, Copy, newest
from .kubernetes.client import Cluster, ClusterError, Conflict, NotFound
from .kubernetes.paths import CRDS, RESOURCE, is_finalizer
from .resource.spec import class_of
from .workloads.kinds import BY_NAME, PASSING_ON, Kind, UnusableKind, from_crd
from .workloads.workload import Change, Workload, restored

__all__ = ["EVERYWHERE", "Fate", "Finding", "Only", "rescue"]

Others: TypeAlias = frozenset[str] | None
_TRIES = 5
_WITHOUT_COPIES = frozenset(kind for name, kind in BY_NAME.items() if name not in PASSING_ON)
"""The kinds that pass no annotations on; for a custom kind it is unknown."""
_AT_ONCE = 200


class Fate(StrEnum):
    """The outcome for one object."""

    RESTORED = "restored"
    KEPT = "kept as changed since"
    LET_GO = "released"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; ``why`` is empty if the outcome says it all."""

    fate: Fate
    what: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.fate}: {self.what}" + (f": {self.why}" if self.why else "")


@dataclass(frozen=True, slots=True)
class Only:
    """Restricts the rescue.

    Attributes:
        kinds: Kinds of workloads, as in the operator's settings; none means every existing kind.
        resource_class: The class whose operator is gone for good: only workloads paused by its resources, or by
            vanished ones, and all of its resources are released; empty for all pauses.
        ignores_missing: Skip named kinds and namespaces that do not exist, instead of failing.

    Raises:
        ConfigurationError: On creation, if a kind cannot exist.
    """

    kinds: Sequence[str] = ()
    resource_class: str = ""
    ignores_missing: bool = False

    def __post_init__(self) -> None:
        for name in self.kinds:
            if name not in BY_NAME and "." not in name:
                meant = nearest(name.capitalize(), BY_NAME) or nearest(name.removesuffix("s").capitalize(), BY_NAME)
                suggestion = (
                    f"did you mean {meant}?" if meant else f"write {', '.join(BY_NAME)}, or the name of a CRD"
                )
                raise ConfigurationError(f"--kind {name} is not a kind of workloads: {suggestion}")


async def rescue(
    cluster: Cluster, namespaces: Sequence[str], *, dry_run: bool = False, only: Only = Only()
) -> AsyncIterator[Finding]:
    """Restore everything paused in these namespaces, or :data:`EVERYWHERE`, and yield each outcome.

    A workload changed since stays as it is, and only loses the annotation. A resource whose deletion waits for an
    operator is released afterwards. A named namespace or kind that does not exist counts as failed, like an
    unreadable one.
    """
    kinds = _known(only)
    for found in await _custom(cluster, only):
        if isinstance(found, Finding):
            yield found
        else:
            kinds.append(found)
    for namespace in namespaces:
        if not only.ignores_missing and await _is_missing(cluster, namespace):
            yield Finding(Fate.FAILED, f"namespace {namespace}", "there is no such namespace")
            continue
        try:
            others = await _of_others(cluster, namespace, only)
        except ClusterError as error:
            yield _unlisted(RESOURCE[2], namespace, error)
            continue
        for kind in kinds:
            async for finding in _workloads(cluster, kind, namespace, dry_run, others, only):
                yield finding
        async for finding in _resources(cluster, namespace, dry_run, only):
            yield finding


def _known(only: Only) -> list[Kind]:
    return [kind for name, kind in BY_NAME.items() if name in (only.kinds or BY_NAME)]


async def _is_missing(cluster: Cluster, namespace: str) -> bool:
    """Return whether there is no such namespace, as far as the rights allow."""
    if namespace == EVERYWHERE:
        return False
    try:
        await cluster.namespace(namespace)
    except NotFound:
        return True
    except ClusterError:
        return False
    return False


async def _custom(cluster: Cluster, only: Only) -> list[Kind | Finding]:
    """Return the other kinds with a ``scale`` subresource, and the problems of the named ones.

    Without named kinds, and without the right to read CRDs, there are none.
    """
    if only.kinds:
        named = [await _named(cluster, name, only) for name in only.kinds if name not in BY_NAME]
        return [found for found in named if found is not None]
    kinds: list[Kind | Finding] = []
    with suppress(ClusterError):
        async for crd in cluster.list(CRDS, EVERYWHERE):
            with suppress(UnusableKind):
                kinds.append(from_crd(crd))
    return kinds


async def _named(cluster: Cluster, name: str, only: Only) -> Kind | Finding | None:
    try:
        return from_crd(await cluster.crd(name))
    except NotFound:
        return None if only.ignores_missing else Finding(Fate.FAILED, f"kind {name}", "there is no such CRD")
    except (ClusterError, UnusableKind) as error:
        return Finding(Fate.FAILED, f"kind {name}", str(error))


async def _of_others(cluster: Cluster, namespace: str, only: Only) -> Others:
    """Return the owners whose pauses must stay, by UID; None if every pause ends."""
    if not only.resource_class:
        return None
    try:
        found = [body async for body in cluster.list(RESOURCE, namespace)]
    except NotFound:
        return frozenset()  # the CRD is gone, and with it every resource
    return frozenset(body["metadata"]["uid"] for body in found if not _is_of(only.resource_class, body))


def _is_of(resource_class: str, body: Mapping[str, Any]) -> bool:
    return class_of(body) == resource_class


def _unlisted(plural: str, namespace: str, error: ClusterError) -> Finding:
    return Finding(Fate.FAILED, f"{plural} in {namespace or 'all namespaces'}", str(error))


# -- workloads ------------------------------------------------------------------------------------------------------


async def _workloads(
    cluster: Cluster, kind: Kind, namespace: str, dry_run: bool, others: Others, only: Only
) -> AsyncIterator[Finding]:
    workloads: list[Workload] = []
    lacking: list[Workload] = []
    try:
        async for body in cluster.list(kind.path, namespace):
            workload = Workload.of(kind, body)
            if workload.may_lack_its_pause and kind not in _WITHOUT_COPIES:
                lacking.append(workload)
            elif (workload.damage or workload.pause or workload.copied) and _is_ours(workload, others):
                workloads.append(workload)
    except NotFound:
        # It matters to the caller.
        if only.kinds and not only.ignores_missing:
            yield Finding(Fate.FAILED, f"kind {kind.name}", "this cluster does not know it")
        return
    except ClusterError as error:
        yield _unlisted(kind.plural, namespace, error)
    are_copies_needed = (workloads or lacking) and kind not in _WITHOUT_COPIES
    copies = await _copies(cluster, namespace) if are_copies_needed else []
    reminded = ((workload, newest(workload, copies)) for workload in lacking)
    workloads += [workload for workload, known in reminded if known.pause and _is_ours(known, others)]
    for first in range(0, len(workloads), _AT_ONCE):
        some = workloads[first : first + _AT_ONCE]
        for finding in await asyncio.gather(*(_restore(cluster, workload, copies, dry_run) for workload in some)):
            yield finding


async def _copies(cluster: Cluster, namespace: str) -> list[Copy]:
    """Return the copies on ReplicaSets.

    An undone rollout may have put an earlier annotation onto the workload itself.
    """
    with suppress(ClusterError):
        found = [Copy.of(body) async for body in cluster.metadata(REPLICA_SETS.path, namespace)]
        return [copy for copy in found if copy]
    return []


def _is_ours(workload: Workload, others: Others) -> bool:
    """Return whether to restore it; a workload left paused on purpose is restored only without a class."""
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
                    await _make(cluster, change)
            except Conflict:
                workload = await cluster.workload(workload)
            else:
                return Finding(fate, what)
    except NotFound:
        return Finding(Fate.LET_GO, what, "it is gone")
    except ClusterError as error:
        return Finding(Fate.FAILED, what, str(error))
    return Finding(Fate.FAILED, what, "it keeps changing; run this again")


async def _make(cluster: Cluster, change: Change) -> None:
    made = await cluster.change(change)
    with suppress(ClusterError):  # it is restored; that the next apply may have to be forced is the lesser evil
        for _ in range(_TRIES):
            with suppress(Conflict):  # its controller has begun to bring it back, and reports it in its status
                await cluster.disown(made)
                return


def _unpaused(what: str, workload: Workload) -> Finding:
    if workload.damage:
        return Finding(Fate.FAILED, what, f"{workload.damage}; set it by hand and remove the annotation")
    return Finding(Fate.RESTORED, what, "by another client")


# -- resources whose deletion waits for an operator, or would -------------------------------------------------------


async def _resources(cluster: Cluster, namespace: str, dry_run: bool, only: Only) -> AsyncIterator[Finding]:
    try:
        waiting = [body async for body in cluster.list(RESOURCE, namespace) if _waits(body, only)]
    except NotFound:
        return  # the CRD is gone, and its objects with it
    except ClusterError as error:
        yield _unlisted(RESOURCE[2], namespace, error)
        return
    for body in waiting:
        yield await _remove_finalizers(cluster, body, dry_run)


def _waits(body: Mapping[str, Any], only: Only) -> bool:
    metadata = body["metadata"]
    if not any(map(is_finalizer, metadata.get("finalizers", ()))):
        return False
    if only.resource_class:
        return _is_of(only.resource_class, body)
    return bool(metadata.get("deletionTimestamp"))


async def _remove_finalizers(cluster: Cluster, body: Mapping[str, Any], dry_run: bool) -> Finding:
    what = f"OpenRouterStatus/{body['metadata']['name']} in {body['metadata']['namespace']}"
    try:
        if not dry_run:
            await cluster.remove_finalizers(await _without_a_state(cluster, body))
    except NotFound:
        pass
    except ClusterError as error:
        return Finding(Fate.FAILED, what, str(error))
    return Finding(Fate.LET_GO, what, _why_let_go(body))


async def _without_a_state(cluster: Cluster, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Say that nobody looks after it: what an operator wrote last would else be shown as the state for good."""
    if body["metadata"].get("deletionTimestamp"):
        return body
    ready = {
        "type": "Ready",
        "status": "False",
        "reason": "OperatorGone",
        "message": "the operator was uninstalled; nothing is paused for this resource any more",
        "lastTransitionTime": datetime.fromtimestamp(cluster.now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    metadata = body["metadata"]
    with suppress(ClusterError):  # to let it go is what matters
        for _ in range(_TRIES):
            try:
                return await cluster.write_status(body, {"conditions": [ready]})
            except Conflict:
                body = await cluster.resource(metadata["namespace"], metadata["name"])
    return body


def _why_let_go(body: Mapping[str, Any]) -> str:
    waited = body["metadata"].get("deletionTimestamp")
    return "its deletion waited for an operator" if waited else "its operator is gone"
