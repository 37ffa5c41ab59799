"""Gathers the workloads that a resource names, each with its surroundings, and the names that match nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from openrouter_operator.decisions.summary import (
    Problem,
    no_match,
    not_installed,
    not_pausable,
    not_watched,
)
from openrouter_operator.decisions.targets import Candidate, Owner, Targets
from openrouter_operator.resource.precedence import Precedence
from openrouter_operator.resource.spec import Options, Spec, Which
from openrouter_operator.workloads.inventory import Inventory
from openrouter_operator.workloads.kinds import BY_NAME
from openrouter_operator.workloads.workload import Workload

from .pause_journal import PauseJournal

__all__ = ["Gatherer", "unmatched", "unwatched"]


class Gatherer:
    """Looks at the cache of the cluster for one resource; the API server is not asked."""

    def __init__(self, inventory: Inventory, precedence: Precedence, journal: PauseJournal) -> None:
        self.rolling: frozenset[str] = frozenset()
        """The workloads that an earlier reconcile left alone for a rollout under way."""
        self._inventory = inventory
        self._precedence = precedence
        self._journal = journal

    def targets(self, namespace: str, owner: Owner, spec: Spec | None) -> Targets:
        """Return the workloads that the spec names, and those already paused; without a spec only the latter."""
        found = []
        for workload in map(self._journal.recall, self._inventory.of(namespace)):
            options = spec.options(workload) if spec is not None else None
            candidate = Candidate(
                workload,
                is_matched=options is not None,
                options=options or Options(),
                has_worked=self._has_worked(workload),
            )
            is_marked = workload.has_litter or bool(workload.released)
            if candidate.is_matched or candidate.is_paused_by(owner) or is_marked:
                found.append(candidate)
        return Targets(owner, self._with_surroundings(namespace, owner, found))

    def _with_surroundings(self, namespace: str, owner: Owner, found: Sequence[Candidate]) -> list[Candidate]:
        """With their autoscalers, KEDA objects, and older resources."""
        autoscaled, kedas = self._inventory.autoscaled(namespace), self._inventory.scaled_by_keda(namespace)
        rollouts, older = (
            self._inventory.emptied_by_rollouts(namespace),
            self._precedence.before(namespace, owner.uid),
        )
        if not (autoscaled or kedas or rollouts or older):
            return list(found)

        def whole(candidate: Candidate) -> Candidate:
            workload = candidate.workload
            place = (workload.kind.name, workload.name)
            autoscaler = autoscaled.get(place)
            behind = self._inventory.at(namespace, workload.scales) if workload.scales else None
            return replace(
                candidate,
                has_autoscaler=autoscaler is not None,
                autoscaler_min=autoscaler.least if autoscaler else 1,
                is_kedas=place in kedas,
                is_rollouts=place in rollouts,
                pods_behind=behind.pods if behind else None,
                traits_behind=behind.traits if behind else frozenset(),
                has_worked=self._has_worked(workload, behind),
                claimed_by=next((claim.name for claim in older if claim.spec.matches(workload)), ""),
            )

        return list(map(whole, found))

    def _has_worked(self, workload: Workload, behind: Workload | None = None) -> bool:
        """Conditions from before this process started stay as long as they hold."""
        return str(workload) in self.rolling or self._inventory.has_worked(behind or workload)


def unwatched(inventory: Inventory, spec: Spec) -> list[Problem]:
    """Return the kinds in the spec that are not watched."""
    lacking = {str(t): t for t in spec.targets if not any(map(t.is_of, inventory.kinds))}
    return [_why_unwatched(inventory, kind, lacking[kind]) for kind in sorted(lacking)]


def _why_unwatched(inventory: Inventory, kind: str, target: Which) -> Problem:
    if target.is_plain and target.kind not in BY_NAME:
        return not_pausable(kind)
    unusable = [why for name, why in inventory.unusable.items() if target.may_be_of(name)]
    if unusable:
        return not_pausable(kind, unusable[0])
    return not_installed(kind) if any(map(target.may_be_of, inventory.absent)) else not_watched(kind)


def unmatched(inventory: Inventory, namespace: str, spec: Spec) -> list[Problem]:
    """Return the targets and exclusions, of watched kinds, that match no workload of the namespace."""
    here = list(inventory.of(namespace))
    fields: Sequence[tuple[str, Sequence[Which]]] = (("targets", spec.targets), ("exclude", spec.exclude))
    return [
        no_match(f"spec.{name}[{nth}]", f"there is no {which.words} in namespace {namespace}")
        for name, named in fields
        for nth, which in enumerate(named)
        if not which.annotated and any(map(which.is_of, inventory.kinds)) and not any(map(which.matches, here))
    ]
