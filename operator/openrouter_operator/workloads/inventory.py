"""A cache of the cluster's workloads, filled by the watch, so that reads need no request."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, TypeAlias

from .kinds import DEPLOYMENT, Kind
from .workload import Pause, Workload

__all__ = ["Autoscaler", "Inventory", "Place"]

_but_version = attrgetter(*(field.name for field in fields(Workload) if field.name != "version"))
Place: TypeAlias = tuple[str, str]
"""Kind and name, as an autoscaler names its target."""


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """A HorizontalPodAutoscaler.

    Attributes:
        least: Its minimum of pods.
        is_kedas: Whether a ScaledObject created it.
    """

    target: Place
    least: int
    is_kedas: bool = False


class Inventory:
    """The known workloads, and the autoscalers that target them.

    Both the watch and the answers to our own patches arrive here, in any order. The newer version wins, so that the
    next round is not based on the state before our own change.

    Args:
        kinds: The watched kinds.

    Attributes:
        absent: Kinds in the settings that the cluster does not have, by name.
        unusable: Kinds without a number of replicas, by name, with the reason.
    """

    def __init__(self, kinds: Sequence[Kind] = (DEPLOYMENT,)) -> None:
        self.kinds = tuple(kinds)
        self.absent: frozenset[str] = frozenset()
        self.unusable: dict[str, str] = {}
        self._workloads: defaultdict[str, dict[tuple[Kind, str], Workload]] = defaultdict(dict)
        self._untried: set[str] = set()
        self._changed: set[str] = set()
        self._undone: dict[str, Pause] = {}
        self._autoscalers: defaultdict[str, dict[str, Autoscaler]] = defaultdict(dict)

    @property
    def own_kinds(self) -> tuple[Kind, ...]:
        """Kubernetes' own kinds, which always exist."""
        return tuple(kind for kind in self.kinds if not kind.has_crd)

    def put(self, workload: Workload) -> bool:
        """Note the workload; False if it is unchanged, or older than the known one."""
        known = self._workloads[workload.namespace].get((workload.kind, workload.name))
        if known is not None and (known.version == workload.version or _version(known) > _version(workload)):
            return False
        self.replace(workload)
        return known is None or _but_version(known) != _but_version(workload)

    def at_version(self, kind: Kind, metadata: Mapping[str, Any]) -> Workload | None:
        """Return the workload with this metadata, if exactly that version of it is known already.

        It is for most of what a watch shows of this process' own changes.
        """
        known = self._workloads[metadata["namespace"]].get((kind, metadata["name"]))
        same = known is not None and (known.uid, known.version) == (metadata["uid"], metadata["resourceVersion"])
        return known if same else None

    def replace(self, workload: Workload) -> None:
        """Note the API server's latest answer, whatever its version: after a restore, versions restart."""
        found, place = self._workloads[workload.namespace], (workload.kind, workload.name)
        is_new = place not in found or found[place].uid != workload.uid
        if workload.pods == 0 or (is_new and workload.is_untried):
            self._untried.add(workload.uid)
        if workload.is_ready and workload.pods > 0:
            self._untried.discard(workload.uid)
        if workload.is_undone and workload.pause:
            self._undone[workload.uid] = workload.pause
        found[place] = workload

    def put_changed(self, workload: Workload) -> None:
        """Note the answer to a change that this process has made."""
        self._changed.add(workload.uid)
        self.put(workload)

    def has_changed(self, workload: Workload) -> bool:
        """Return whether this process has changed it: else the operator of another class may have done that."""
        return workload.uid in self._changed

    def drop(self, workload: Workload) -> None:
        """Drop the workload, but not another one with the same name."""
        found, place = self._workloads[workload.namespace], (workload.kind, workload.name)
        if place in found and found[place].uid == workload.uid:
            del found[place]
            self._untried.discard(workload.uid)
            self._changed.discard(workload.uid)
            self._undone.pop(workload.uid, None)

    def has_worked(self, workload: Workload) -> bool:
        """Return whether a pod of it may have been ready since its creation, and since it was last seen at 0.

        An operator that has just started does not know, and so protects a good revision.
        """
        return workload.uid not in self._untried

    def is_over(self, copied: Pause) -> bool:
        """Return whether a copy has a pause that was over at its creation: an undone rollout had brought it back."""
        undone = self._undone.get(copied.uid)
        return undone is not None and undone.is_same(copied)

    def of(self, namespace: str) -> Iterable[Workload]:
        return tuple(self._workloads[namespace].values())

    def of_kind(self, kind: Kind) -> Iterable[Workload]:
        """Yield every workload of the kind, in all namespaces."""
        return tuple(w for found in self._workloads.values() for w in found.values() if w.kind == kind)

    def paused(self) -> Iterable[Workload]:
        """Yield every workload, in all namespaces, with a pause."""
        return tuple(w for found in self._workloads.values() for w in found.values() if w.pause is not None)

    def copies(self) -> Iterable[Workload]:
        """Yield every workload, in all namespaces, that is a copy of a paused one."""
        return tuple(w for found in self._workloads.values() for w in found.values() if w.copied is not None)

    def with_wish(self) -> frozenset[str]:
        """The UIDs of those whose owners say how they are to come back from a pause."""
        return frozenset(w.uid for found in self._workloads.values() for w in found.values() if w.resume_to)

    def lacking(self) -> Iterable[Workload]:
        """Every workload that may have lost the annotation of its pause."""
        return tuple(w for found in self._workloads.values() for w in found.values() if w.may_lack_its_pause)

    def owing(self) -> Iterable[Workload]:
        """Yield every workload that still has fields of ours to give up."""
        return tuple(w for found in self._workloads.values() for w in found.values() if w.owes_fields)

    # -- autoscalers --------------------------------------------------------------------------------------------

    def put_autoscaler(self, body: Mapping[str, Any]) -> None:
        """Note a HorizontalPodAutoscaler."""
        metadata, spec = body["metadata"], body.get("spec") or {}
        target = spec.get("scaleTargetRef") or {}
        owners = {owner.get("kind") for owner in metadata.get("ownerReferences") or ()}
        self._autoscalers[metadata["namespace"]][metadata["name"]] = Autoscaler(
            target=(str(target.get("kind")), str(target.get("name"))),
            least=spec.get("minReplicas", 1),
            is_kedas="ScaledObject" in owners,
        )

    def drop_autoscaler(self, namespace: str, name: str) -> None:
        self._autoscalers[namespace].pop(name, None)

    def autoscalers(self) -> set[tuple[str, str]]:
        """Return namespace and name of each known one."""
        return {(namespace, name) for namespace, found in self._autoscalers.items() for name in found}

    def autoscaled(self, namespace: str) -> Mapping[Place, Autoscaler]:
        """Return the autoscaler of each workload there that has one."""
        return {each.target: each for each in self._autoscalers[namespace].values()}

    def scaled_by_keda(self, namespace: str) -> frozenset[Place]:
        """Return each workload there whose replicas a ScaledObject manages."""
        by_objects = (w.scales for w in self._workloads[namespace].values() if w.scales is not None)
        by_autoscalers = (each.target for each in self._autoscalers[namespace].values() if each.is_kedas)
        return frozenset((*by_objects, *by_autoscalers))

    def emptied_by_rollouts(self, namespace: str) -> frozenset[Place]:
        """Return each workload there that a Rollout replaces and scales to 0."""
        return frozenset(w.empties for w in self._workloads[namespace].values() if w.empties is not None)

    def at(self, namespace: str, place: Place) -> Workload | None:
        """Return the workload of that kind and name; None if unknown."""
        found = self._workloads[namespace].values()
        return next((w for w in found if (w.kind.name, w.name) == place), None)


def _version(workload: Workload) -> int:
    """Resource versions are opaque by contract, but are growing integers in every existing API server."""
    return int(workload.version) if workload.version.isdecimal() else 0
