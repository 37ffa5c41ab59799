"""How many workloads are how, and what stands in the way of which: counted, without a word for the status; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .candidates import Candidate, Owner, skip
from .workload import Pause, Workload

__all__ = ["PROBLEMS_SHOWN", "Failure", "Problem", "Tally", "not_installed", "not_watched", "tally"]

PROBLEMS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Failure:
    """A change that the API server did not take."""

    reason: str
    message: str


class Problem(NamedTuple):
    """What stands in the way of one workload."""

    target: str
    reason: str
    message: str


def not_watched(kind: str) -> Problem:
    """The spec names a kind that the operator is not to look after."""
    words = (
        "the operator does not look after this kind: mend the apiVersion if it is wrong, or add the kind to"
        " operator.kinds of the chart (OPENROUTER_GUARD_KINDS)"
    )
    return Problem(kind, "KindNotWatched", words)


def not_installed(kind: str) -> Problem:
    """The spec names a kind that the operator is to look after, and the cluster does not have."""
    words = "the cluster does not have this kind: install its CRD, and within a minute it is looked after"
    return Problem(kind, "KindNotInstalled", words)


@dataclass(frozen=True, slots=True)
class Tally:
    """Numbers of workloads; ``able`` is how many are paused or could be.

    Attributes:
        pods: That run, or are to, of all paused workloads.
        original_pods: That ran before.
    """

    matched: int
    able: int
    paused: int
    resuming: int
    failed: int
    problems: tuple[Problem, ...] = ()
    unwatched: tuple[Problem, ...] = ()
    contested: tuple[Problem, ...] = ()
    pods: int = 0
    original_pods: int = 0

    @property
    def is_paused(self) -> bool:
        return self.paused + self.resuming > 0


def tally(
    candidates: Sequence[Candidate],
    owner: Owner,
    outage: str,
    failures: Mapping[str, Failure],
    unwatched: Sequence[Problem] = (),
) -> Tally:
    """Count; *failures* by the UID of the workload, *unwatched* are of kinds that nobody looks after."""
    matched = [c for c in candidates if c.is_matched]
    ours = [c for c in candidates if c.is_paused_by(owner)]
    up = [c for c in ours if c.workload.pause and c.workload.set_pods > c.paused_pods]
    skips = [(c, skip(c, owner, outage)) for c in matched]
    failed = [(c, failures[c.workload.uid]) for c in candidates if c.workload.uid in failures]
    problems = [Problem(str(c.workload), failure.reason, failure.message) for c, failure in failed]
    problems += [Problem(str(c.workload), why.reason, why.message) for c, why in skips if why and why.message]
    fights = (_contested(c.workload, c.workload.pause) for c in ours if c.workload.pause)
    contested = tuple(problem for problem in fights if problem)
    problems += contested
    problems += unwatched
    return Tally(
        matched=len(matched),
        able=sum(why is None for _, why in skips),
        paused=len(ours) - len(up),
        resuming=len(up),
        failed=len(failed),
        problems=tuple(sorted(problems)[:PROBLEMS_SHOWN]),
        unwatched=tuple(unwatched),
        contested=contested,
        pods=sum(c.workload.set_pods for c in ours),
        original_pods=sum(c.workload.original_pods for c in ours),
    )


def _contested(workload: Workload, pause: Pause) -> Problem | None:
    if pause.contest is None:
        return None
    who, times = pause.contest.by or "somebody", pause.contest.times
    words = (
        f"{who!r} undoes its pause, put back {times} times: let it leave that field alone (docs/operator.md), or"
        " write onManualChange: Respect"
    )
    return Problem(str(workload), "Contested", words)
