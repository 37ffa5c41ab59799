"""The cost of an outage, computed from the calls that the upstream saw."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from .outage_upstream import Call, Plan

__all__ = ["Figures", "NothingHealthy", "figures", "medians"]

SETTLED = 0.4
"""The first calls of a fleet that starts are in step: what is healthy is measured after this part of the time."""
FIRST_S = 5.0
BACK = 0.9


class NothingHealthy(Exception):
    """There is nothing to compare an outage with."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One strategy in one outage.

    Attributes:
        calls: Sent while the upstream was down,
        later: and of these, after its first five seconds.
        lost: Tasks that failed and were not put back.
        work_lost_s: Of the whole fleet's work, after the return.
        back_s: From the return until nine tenths of the healthy number of good calls are under way.
        peak: The most calls begun in one second after the return, to as many as a second healthy.
        kept: Good work done while it was down, to as much healthy.
    """

    calls: float
    later: float
    lost: float
    work_lost_s: float
    back_s: float
    peak: float
    kept: float


def figures(calls: Sequence[Call], lost: int, plan: Plan) -> Figures:
    """The figures of a fleet of which *lost* tasks were."""
    began = sorted(call.began_at for call in calls)
    good = [call for call in calls if call.is_good]
    settled_s = plan.began_at + SETTLED * (plan.down_s - plan.began_at)
    healthy_s = plan.down_s - settled_s
    healthy = _work_s(good, settled_s, plan.down_s) / healthy_s
    if not healthy:
        raise NothingHealthy(
            "no call ended well before the outage: the machine is too busy, or the strategy is broken"
        )
    after_s, down_for_s = plan.ended_at - plan.well_s, plan.well_s - plan.down_s
    return Figures(
        calls=_between(began, plan.down_s, plan.well_s),
        later=_between(began, min(plan.down_s + FIRST_S, plan.well_s), plan.well_s),
        lost=lost,
        work_lost_s=max(after_s - _work_s(good, plan.well_s, plan.ended_at) / healthy, 0.0),
        back_s=_back_s(good, BACK * healthy, plan),
        peak=_peak([at for at in began if at >= plan.well_s]) / (healthy / plan.call_s),
        kept=_work_s(good, plan.down_s, plan.well_s) / down_for_s / healthy,
    )


def medians(found: Sequence[Figures]) -> Figures:
    """Each figure's own median."""
    return Figures(*(median(values) for values in zip(*map(_values, found), strict=True)))


def _values(found: Figures) -> Iterator[float]:
    return (getattr(found, name) for name in Figures.__slots__)


def _between(began: Sequence[float], from_s: float, until: float) -> int:
    return bisect_left(began, until) - bisect_left(began, from_s)


def _work_s(good: Sequence[Call], from_s: float, until: float) -> float:
    """Seconds of good calls under way between the two, of all workers together."""
    return sum(max(min(call.ended_at, until) - max(call.began_at, from_s), 0.0) for call in good)


def _back_s(good: Sequence[Call], wanted: float, plan: Plan) -> float:
    """All of the time that is left, where it never is."""
    changes = sorted([(call.began_at, 1) for call in good] + [(call.ended_at, -1) for call in good])
    under_way = 0
    for at, change in changes:
        under_way += change
        if at >= plan.well_s and under_way >= wanted:
            return at - plan.well_s
    return plan.ended_at - plan.well_s


def _peak(began: Sequence[float]) -> int:
    """The most within one second."""
    return max((bisect_left(began, at + 1.0) - number for number, at in enumerate(began)), default=0)
