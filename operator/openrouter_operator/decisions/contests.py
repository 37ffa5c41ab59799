"""What to do about somebody who undoes a pause: put it back, or let their word stand; pure.

Who changes the replicas alone has decided something, and ``onManualChange`` says whether that counts. Who writes a
whole manifest (``helm upgrade``, ``kubectl apply``, Argo CD, Flux) says how many there are to be, and not that the
outage is over: the pause holds, and their number is what comes back. One that keeps writing it has its way all the
same, for pods that start and stop all the time serve nobody.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from openrouter_guard.rules.breaker import CLOCK_S
from openrouter_operator.workloads.kinds import Value
from openrouter_operator.workloads.workload import Change, Contest

from .targets import Candidate, Owner

__all__ = ["RESTATED_MOST", "REST_S", "is_fought", "next_contest_s", "past", "put_back"]

RESTATED_MOST = 3
"""So often a manifest is taken for an upgrade; then for somebody who insists."""
REST_S = 600.0
"""After so long without one, a contest begins anew."""


def past(at_s: float, now_s: float) -> float:
    """When something was; long ago if its time lies ahead, so that nothing waits until a clock has caught up."""
    return at_s if at_s <= now_s + CLOCK_S else 0.0


def is_fought(candidate: Candidate, now_s: float) -> bool:
    """Whether a change that somebody has made to a paused workload is undone."""
    if candidate.options.enforces:
        return True
    contest = _standing(candidate, now_s)
    return candidate.workload.is_restated and (contest is None or contest.times < RESTATED_MOST)


def put_back(candidate: Candidate, value: Value, now_s: float) -> Change | None:
    """Pause it again, if its time has come; what they want is what comes back later."""
    workload, pause, contest = candidate.workload, candidate.workload.pause, _standing(candidate, now_s)
    if pause is None or (contest is not None and past(contest.at_s, now_s) and now_s < contest.next_s):
        return None
    again = Contest(contest.times + 1 if contest else 1, now_s, workload.changed_by)
    return Change(workload, value, replace(pause, original=workload.value, set_to=value, contest=again))


def _standing(candidate: Candidate, now_s: float) -> Contest | None:
    """The contest that is under way; None if there is none, or it has rested."""
    pause = candidate.workload.pause
    contest = pause.contest if pause else None
    return contest if contest is not None and now_s - contest.at_s < REST_S else None


def next_contest_s(candidates: Iterable[Candidate], owner: Owner) -> float:
    """When the next pause that somebody has undone may be put back; infinite if none is to be."""
    ours = ((c, c.workload.pause) for c in candidates if c.is_paused_by(owner) and not c.workload.is_as_we_set_it)
    contests = [(c, pause.contest) for c, pause in ours if pause and pause.contest]
    fought = (contest.next_s for c, contest in contests if is_fought(c, contest.at_s))
    return min(fought, default=float("inf"))
