"""Decides what to do if a pause is undone: put it back, or respect the change; pure.

A change of only the replicas is a decision, and ``onManualChange`` says whether it counts. A tool that writes a whole
manifest (``helm upgrade``, ``kubectl apply``, Argo CD, Flux) sets the number of pods, and does not declare the outage
over: the pause holds, and its number is what comes back. A tool that keeps writing it wins all the same, because pods
that start and stop all the time help no one.
"""

from __future__ import annotations

from dataclasses import replace

from openrouter_guard.rules.breaker import CLOCK_S
from openrouter_operator.workloads.kinds import Value
from openrouter_operator.workloads.workload import Change, Contest

from .targets import Candidate, Targets

__all__ = ["RESTATED_MOST", "REST_S", "is_fought", "next_contest_at", "past", "put_back"]

RESTATED_MOST = 3
"""This many times a manifest counts as an upgrade; after that the tool insists."""
REST_S = 600.0
"""After this time without one, a contest starts from the beginning."""


def past(at: float, now: float) -> float:
    """Return the time of an event; long ago if it is in the future, so that nothing waits for a clock to catch up."""
    return at if at <= now + CLOCK_S else 0.0


def is_fought(candidate: Candidate, now: float) -> bool:
    """Return whether a change of a paused workload is undone."""
    if candidate.options.enforces:
        return True
    contest = _standing(candidate, now)
    return candidate.workload.is_restated and (contest is None or contest.times < RESTATED_MOST)


def put_back(candidate: Candidate, value: Value, now: float) -> Change | None:
    """Pause it again if that is due; their value is what comes back later."""
    workload, pause, contest = candidate.workload, candidate.workload.pause, _standing(candidate, now)
    if pause is None or (contest is not None and past(contest.at, now) and now < contest.next_at):
        return None
    again = Contest(contest.times + 1 if contest else 1, now, workload.changed_by)
    return Change(workload, value, replace(pause, original=workload.value, set_to=value, contest=again))


def _standing(candidate: Candidate, now: float) -> Contest | None:
    """Return the present contest; None if there is none, or it has ended."""
    pause = candidate.workload.pause
    contest = pause.contest if pause else None
    return contest if contest is not None and now - contest.at < REST_S else None


def next_contest_at(targets: Targets) -> float:
    """Return when the next undone pause may be put back; infinite without one."""
    ours = ((c, c.workload.pause) for c in targets.owned if not c.workload.is_as_we_set_it)
    contests = [(c, pause.contest) for c, pause in ours if pause and pause.contest]
    fought = (contest.next_at for c, contest in contests if is_fought(c, contest.at))
    return min(fought, default=float("inf"))
