"""The workloads of one ``OpenRouterStatus``, and the reasons to leave some of them alone; pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from openrouter_guard.rules.breaker import BreakerState
from openrouter_operator.resource.spec import Options
from openrouter_operator.workloads.kinds import Trait
from openrouter_operator.workloads.workload import OPT, Workload

from .snapshot import ScopeSnapshot

__all__ = ["DAMAGED", "ROLLOUT", "Candidate", "Owner", "Skip", "Targets", "paused_since", "skip"]


ROLLOUT = "RolloutInProgress"
DAMAGED = "AnnotationDamaged"


@dataclass(frozen=True, slots=True)
class Owner:
    """The ``OpenRouterStatus`` that the operator acts for."""

    uid: str
    name: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A workload to consider.

    Attributes:
        is_matched: Whether the spec names it; if not, it only comes back.
        options: Its options in the spec.
        has_autoscaler: Whether a HorizontalPodAutoscaler takes over once one pod runs.
        autoscaler_min: The autoscaler's minimum of pods.
        is_kedas: Whether a ScaledObject manages its replicas.
        is_rollouts: Whether an Argo Rollout runs in its place, and scales it to 0.
        pods_behind: Number of pods of the workload behind it; None if unknown.
        traits_behind: Traits of that workload.
        has_worked: Whether a pod of it may have been ready: if none ever was, a rollout has no good revision to lose.
        claimed_by: An older ``OpenRouterStatus`` that names it too; empty without one.
    """

    workload: Workload
    is_matched: bool = True
    has_autoscaler: bool = False
    autoscaler_min: int = 1
    options: Options = field(default_factory=Options)
    is_kedas: bool = False
    is_rollouts: bool = False
    pods_behind: int | None = None
    traits_behind: frozenset[Trait] = frozenset()
    has_worked: bool = True
    claimed_by: str = ""

    def is_paused_by(self, owner: Owner) -> bool:
        """Return whether this owner has paused it.

        A resource of the same name takes over the workloads of its predecessor.
        """
        pause = self.workload.pause
        if pause is None:
            return False
        return pause.owner_uid == owner.uid or (pause.is_orphaned and pause.owner == owner.name)

    @property
    def stays(self) -> bool:
        """Return whether this mode can pause it: Hold leaves running pods alone."""
        held = self.workload.kind.control.held
        return self.is_matched and not self.workload.has_unclear_opt and not (self.options.holds and held is None)

    @property
    def paused_pods(self) -> int:
        return self.options.paused_replicas if self.workload.kind.control.moves_pods else 0

    @property
    def comes_back_whole(self) -> bool:
        """Return whether it comes back in one step.

        An autoscaler takes over at the first pod, and a held one has its pods.
        """
        return self.has_autoscaler or (self.options.holds and self.workload.kind.control.moves_pods)


@dataclass(frozen=True, slots=True)
class Targets:
    """The workloads of one resource, worked out once.

    Attributes:
        owner: The resource.
        candidates: The workloads that its spec names, and those with an annotation of ours.
        matched: Those that its spec names.
        owned: Those that it has paused.
    """

    owner: Owner
    candidates: Sequence[Candidate]
    matched: Sequence[Candidate] = field(init=False)
    owned: Sequence[Candidate] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "matched", [c for c in self.candidates if c.is_matched])
        object.__setattr__(self, "owned", [c for c in self.candidates if c.is_paused_by(self.owner)])

    def pausable(self, outage: str) -> list[Candidate]:
        """Return those that may be paused now."""
        owned = {c.workload.uid for c in self.owned}
        running = (c for c in self.matched if c.stays and c.workload.uid not in owned)
        return [c for c in running if skip(c, self.owner, outage) is None]


@dataclass(frozen=True, slots=True)
class Skip:
    """The reason to leave a matched workload alone; ``message`` is empty if it need not be reported."""

    reason: str
    message: str = ""


def paused_since(targets: Targets, snapshot: ScopeSnapshot) -> float | None:
    """Return the start of the present pause; None if nothing is paused.

    A pause from before the last closing is over, even if an old annotation came back since: while the breaker is open
    again, its remains count from that closing.
    """
    ours = (c.workload for c in targets.owned)
    pauses = [each.pause for each in ours if not each.is_undone or each.is_stripped]
    since = min((pause.at for pause in pauses if pause), default=None)
    return since if since is None or snapshot.phase is BreakerState.CLOSED else max(since, snapshot.closed_at)


def skip(candidate: Candidate, owner: Owner, outage: str) -> Skip | None:
    """Return the reason not to pause the workload, None if it is or may be paused."""
    if candidate.is_paused_by(owner):
        return None
    found = (rule(candidate, outage) for rule in _SKIPS)
    return next((why for why in found if why is not None), None)


def _skip_others(candidate: Candidate, _outage: str) -> Skip | None:
    workload, pause = candidate.workload, candidate.workload.pause
    if workload.has_unclear_opt:
        words = f'its annotation {OPT} is {workload.opt!r}: write "true" or "false"; until then it is left alone'
        return Skip("PauseUnclear", words)
    if pause is not None:
        return Skip(
            "PausedByOther", f"OpenRouterStatus {pause.owner} has paused it: let only one of the two match it"
        )
    if candidate.claimed_by:
        words = f"OpenRouterStatus {candidate.claimed_by}, which is older, matches it too: let only one of them do so"
        return Skip("MatchedByOther", words)
    if workload.damage:
        return Skip(DAMAGED, f"{workload.damage}: set the replicas by hand and remove the annotation")
    if workload.is_keda_run:
        # They come and go all the time, as those of a CronJob do.
        return Skip("StartedByScaledJob")
    if workload.is_controlled:
        return Skip("ControlledByOwner", "another object controls its replicas: name that object instead")
    if candidate.is_kedas:
        return Skip("ScaledByKeda", "a ScaledObject of KEDA scales it: name the ScaledObject instead")
    if candidate.is_rollouts:
        words = "an Argo Rollout runs in its place (spec.workloadRef) and scales it to 0: name the Rollout instead"
        return Skip("ScaledByRollout", words)
    if workload.is_our_own:
        return Skip("OwnComponent", "it is part of OpenRouter Guard, which does not pause itself")
    return None


def _skip_traits(candidate: Candidate, _outage: str) -> Skip | None:
    traits, options = candidate.workload.traits, candidate.options
    if Trait.QUEUED in traits:
        return Skip("ManagedByKueue", "Kueue decides when it runs: stop its LocalQueue instead")
    if Trait.FINISHED in traits:
        return Skip("Finished")
    if Trait.LOSES_VOLUMES in traits and not options.allow_volume_deletion:
        words = (
            "its volumes would be deleted (persistentVolumeClaimRetentionPolicy.whenScaled: Delete): write Retain"
            " there, or allowVolumeDeletion: true in its target"
        )
        return Skip("WouldDeleteVolumes", words)
    if _is_half_way(candidate):
        words = (
            "a rollout of it is under way, and would be over at 0 replicas: finish or undo it, or write"
            " pauseDuringRollout: true in its target (docs/operator.md says where pausedReplicas helps)"
        )
        return Skip(ROLLOUT, words)
    if Trait.UNSEEN in traits and _minds_rollouts(candidate):
        return Skip("NotYetSeen")
    if Trait.FROZEN in traits:
        return Skip("OwnerPaused", "its spec.paused is true, so it ignores its replicas")
    if candidate.workload.is_cron_run and not options.takes_cron_runs:
        return Skip("StartedByCronJob")
    if Trait.ACTIVE in traits and options.holds:
        return Skip("HasActivePods")
    return None


def _is_half_way(candidate: Candidate) -> bool:
    """Return whether a pause would lose which pods have the old revision, and which the new one."""
    traits = candidate.workload.traits | candidate.traits_behind
    if not _minds_rollouts(candidate):
        return False
    return Trait.HALF_ROLLED in traits or (Trait.ROLLING in traits and candidate.paused_pods == 0)


def _minds_rollouts(candidate: Candidate) -> bool:
    return candidate.has_worked and not (candidate.options.pauses_rollouts or candidate.options.holds)


def _skip_floor(candidate: Candidate, _outage: str) -> Skip | None:
    floor = candidate.paused_pods
    if floor and candidate.has_autoscaler and floor < candidate.autoscaler_min:
        words = (
            f"pausedReplicas {floor} is below minReplicas {candidate.autoscaler_min} of its autoscaler, which would"
            f" undo it: write 0, which stops the autoscaler too, or at least {candidate.autoscaler_min}"
        )
        return Skip("BelowAutoscaler", words)
    return None


def _skip_state(candidate: Candidate, outage: str) -> Skip | None:
    workload = candidate.workload
    if workload.released and workload.released == outage:
        return Skip("Released", "it was changed, or paused for long enough: left alone in this outage")
    if not candidate.stays:
        return Skip("HasPods")
    if workload.kind.control.is_pause(workload.value):
        return Skip("AlreadyAtZero")
    if workload.kind.control.moves_pods and 0 < workload.pods <= candidate.paused_pods:
        return Skip("AtItsFloor")
    return Skip("BeingDeleted") if workload.is_going else None


_SKIPS: tuple[Callable[[Candidate, str], Skip | None], ...] = (_skip_others, _skip_traits, _skip_floor, _skip_state)
