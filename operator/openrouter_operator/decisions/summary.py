"""Summarises the workloads: their numbers by state, and their problems, as data for the status; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from openrouter_operator.workloads.workload import RESUME_TO, STAY, Pause, Workload

from .targets import DAMAGED, Candidate, Targets, skip

__all__ = [
    "PROBLEMS_SHOWN",
    "Failure",
    "Problem",
    "TargetSummary",
    "no_match",
    "not_installed",
    "not_pausable",
    "not_watched",
    "summary",
]

PROBLEMS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Failure:
    """A change that the API server did not accept."""

    reason: str
    message: str


class Problem(NamedTuple):
    """A problem of one workload."""

    target: str
    reason: str
    message: str


def not_watched(kind: str) -> Problem:
    """The spec names a kind that the operator does not handle."""
    words = (
        "the operator does not handle this kind: correct the apiVersion if it is wrong, or add the kind to"
        " operator.kinds of the chart (OPENROUTER_GUARD_KINDS)"
    )
    return Problem(kind, "KindNotWatched", words)


def not_installed(kind: str) -> Problem:
    """The spec names a kind that the operator handles and the cluster does not have."""
    words = "the cluster does not have this kind: install its CRD, and within a minute it is looked after"
    return Problem(kind, "KindNotInstalled", words)


def not_pausable(kind: str, why: str = "") -> Problem:
    """The spec names a kind without a number of replicas; *why* is what its CRD lacks."""
    reason = why or f"Kubernetes gives a {kind.rpartition(' ')[2]} no number of replicas"
    return Problem(kind, "KindNotPausable", f"{reason}, so it cannot be paused: take it out of spec.targets")


def no_match(field: str, words: str) -> Problem:
    """A target or an exclusion of the spec matches nothing; *field* is its place in the spec."""
    return Problem(field, "NoMatch", f"{words}: mend the name or the labels, or take it out of the spec")


@dataclass(frozen=True, slots=True)
class TargetSummary:
    """Numbers of workloads; ``able`` counts those that are paused or could be.

    Attributes:
        problems: The first few, failed changes first.
        reasons: Number of all problems, by reason.
        pods: Pods of all paused workloads that run, or should run.
        original_pods: Pods that ran before.
    """

    matched: int
    able: int
    paused: int
    resuming: int
    failed: int
    problems: tuple[Problem, ...] = ()
    reasons: Mapping[str, int] = field(default_factory=dict)
    unwatched: tuple[Problem, ...] = ()
    unmatched: tuple[Problem, ...] = ()
    contested: tuple[Problem, ...] = ()
    damaged: tuple[Problem, ...] = ()
    pods: int = 0
    original_pods: int = 0

    @property
    def is_paused(self) -> bool:
        return self.paused + self.resuming > 0


def summary(
    targets: Targets,
    outage: str,
    failures: Mapping[str, Failure],
    unwatched: Sequence[Problem] = (),
    unmatched: Sequence[Problem] = (),
) -> TargetSummary:
    """Count the workloads.

    Args:
        targets: The workloads of the resource.
        outage: The present outage; empty for none.
        failures: Failed changes, by the UID of the workload.
        unwatched: Kinds in the spec that are not handled.
        unmatched: Targets and exclusions of the spec that match nothing.
    """
    ours = targets.owned
    up = [c for c in ours if c.workload.pause and c.workload.set_pods > c.paused_pods]
    skips = [(c, skip(c, targets.owner, outage)) for c in targets.matched]
    failed = sorted(
        Problem(str(c.workload), failures[c.workload.uid].reason, failures[c.workload.uid].message)
        for c in targets.candidates
        if c.workload.uid in failures
    )
    left_alone = sorted(Problem(str(c.workload), why.reason, why.message) for c, why in skips if why and why.message)
    damaged = tuple(problem for problem in left_alone if problem.reason == DAMAGED)
    left_alone = [*damaged, *(problem for problem in left_alone if problem.reason != DAMAGED)]
    altered = sorted(_altered(c.workload) for c in ours if c.workload.is_altered)
    fights = (_contested(c, c.workload.pause) for c in ours if c.workload.pause)
    contested = tuple(problem for problem in fights if problem)
    unclear = sorted(_unclear(c.workload) for c in targets.candidates if c.workload.has_unclear_return)
    problems = [*failed, *altered, *contested, *unclear, *unwatched, *unmatched, *left_alone]
    return TargetSummary(
        matched=len(targets.matched),
        able=sum(why is None for _, why in skips),
        paused=len(ours) - len(up),
        resuming=len(up),
        failed=len(failed),
        problems=tuple(problems[:PROBLEMS_SHOWN]),
        reasons=Counter(problem.reason for problem in problems),
        unwatched=tuple(unwatched),
        unmatched=tuple(unmatched),
        contested=contested,
        damaged=damaged,
        pods=sum(c.workload.set_pods for c in ours),
        original_pods=sum(c.workload.original_pods for c in ours),
    )


def _altered(workload: Workload) -> Problem:
    words = (
        f"an admission policy or webhook made {workload.pods} of the {workload.set_pods} pods that were asked for; at"
        f" the end of the pause it comes back with {workload.original_pods}: let the policy pass what"
        " openrouter-guard writes"
    )
    return Problem(str(workload), "ChangedByAdmission", words)


def _unclear(workload: Workload) -> Problem:
    words = (
        f"its annotation {RESUME_TO} is {workload.resume_to!r}: write a number of pods or {STAY!r} (of what is"
        ' suspended, "0" or "stay"); until then it comes back as it was'
    )
    return Problem(str(workload), "ResumeUnclear", words)


def _contested(candidate: Candidate, pause: Pause) -> Problem | None:
    contest, workload = pause.contest, candidate.workload
    # A manifest that was applied once is an upgrade, not a contest.
    if contest is None or (contest.times < 2 and not candidate.options.enforces):
        return None
    who, times = contest.by or "somebody", contest.times
    words = f"{who!r} undoes its pause, put back {times} times: let it leave that field alone (docs/operator.md)"
    words += ", or write onManualChange: Respect" if candidate.options.enforces else "; soon it is left to it"
    return Problem(str(workload), "Contested", words)
