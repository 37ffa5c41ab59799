"""The goal for all targets together, from the breaker, the spec and the time, also while Redis is away: pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from openrouter_guard.rules.breaker import BreakerState, Open
from openrouter_guard.rules.signals import ErrorType, OpenRouterState
from openrouter_operator.resource.spec import Mode, PauseOn, Spec, Strategy

from .contests import past
from .snapshot import ScopeSnapshot

__all__ = ["FLAPPING", "Goal", "Step", "goal"]


FLAPPING = "Flapping"
SHORTEST_LIMIT_S = 300.0
"""A shorter rate limit is no reason to pause."""
_BY_ITSELF = frozenset({"trial_succeeded", "checks_succeeded"})
"""Reasons of closings that are not forced by an override."""


class Step(StrEnum):
    """The goal for the targets."""

    KEEP = "keep"
    """Leave them as they are."""
    PAUSE = "pause"
    """All at zero."""
    CANARY = "canary"
    """One pod runs, the others are at zero."""
    RESUME = "resume"
    """A share of the original pods runs, or all."""


@dataclass(frozen=True, slots=True)
class Goal:
    """The current goal.

    Attributes:
        reason: One word, as conditions and events show it.
        share: Share of the original pods, 0 to 1, to run while resuming.
        release: The outage in which resumed workloads are not paused again; empty for none.
        next_at: When time alone will change the goal; None if only an event can.
    """

    step: Step
    reason: str
    share: float = 0.0
    release: str = ""
    next_at: float | None = None


# -- the goal -------------------------------------------------------------------------------------------------------


def goal(spec: Spec, snapshot: ScopeSnapshot, paused_at: float | None) -> Goal:
    """Return the current goal; *paused_at* is the start of the present pause, None if nothing is paused."""
    if paused_at is not None:
        paused_at = past(paused_at, snapshot.now)
    found = (rule(spec, snapshot, paused_at) for rule in _RULES)
    return next(goal for goal in found if goal is not None)


def _suspended(spec: Spec, _snapshot: ScopeSnapshot, _paused_at: float | None) -> Goal | None:
    return Goal(Step.KEEP, "Suspended") if spec.suspend else None


def _only_observing(spec: Spec, _snapshot: ScopeSnapshot, _paused_at: float | None) -> Goal | None:
    return Goal(Step.RESUME, "ObserveOnly", share=1.0) if spec.mode is Mode.OBSERVE else None


def _unknown(spec: Spec, snapshot: ScopeSnapshot, paused_at: float | None) -> Goal | None:
    """Nothing changes while the state is unknown; but a dead Redis must not strand a fleet."""
    if snapshot.is_fresh:
        return None
    give_up_at = snapshot.last_known_at + spec.max_unknown_seconds
    if paused_at is None or snapshot.now < give_up_at:
        return Goal(Step.KEEP, "StateUnknown", next_at=None if paused_at is None else give_up_at)
    return _resumed(spec, snapshot.now, since=give_up_at, reason="StateUnknown")


def _not_asked_for(spec: Spec, snapshot: ScopeSnapshot, _paused_at: float | None) -> Goal | None:
    """Some reasons to open may not be reasons to pause; an override that forces it open always is."""
    if (
        snapshot.phase is BreakerState.CLOSED
        or snapshot.override is not None
        or PauseOn.BREAKER_OPEN in spec.pause_on
    ):
        return None
    reason = snapshot.record.breaker.reason if snapshot.record else ""
    return None if _PAUSED_ON.get(reason, PauseOn.OUTAGE) in spec.pause_on else Goal(Step.RESUME, "NotPausedOn", 1.0)


_PAUSED_ON: Mapping[str, PauseOn] = {
    ErrorType.CREDITS_EXHAUSTED: PauseOn.CREDITS_EXHAUSTED,
    ErrorType.API_KEY_INVALID: PauseOn.KEY_INVALID,
    OpenRouterState.API_KEY_MISSING: PauseOn.KEY_INVALID,
}


def _rate_limited(spec: Spec, snapshot: ScopeSnapshot, paused_at: float | None) -> Goal | None:
    """A long rate limit is a reason to pause, and one that is nearly over is not.

    A begun pause then lasts until its end.
    """
    until = snapshot.limited_until
    if snapshot.phase is not BreakerState.CLOSED or not until or PauseOn.RATE_LIMITED not in spec.pause_on:
        return None
    if paused_at is None:
        pauses = until - snapshot.now >= SHORTEST_LIMIT_S
        return Goal(Step.PAUSE, "RateLimited", next_at=until) if pauses else None
    if snapshot.now >= (ends_at := _end_of_pause(spec, paused_at)):
        return replace(_resumed(spec, snapshot.now, since=ends_at, reason="MaxPause"), release=snapshot.outage)
    return Goal(Step.PAUSE, "RateLimited", next_at=min(until, ends_at))


def _closed(spec: Spec, snapshot: ScopeSnapshot, paused_at: float | None) -> Goal | None:
    if snapshot.phase is not BreakerState.CLOSED:
        return None
    if paused_at is None:
        return Goal(Step.RESUME, "BreakerClosed", share=1.0)
    may_resume_at = paused_at + spec.min_paused_seconds
    if snapshot.now < may_resume_at:
        return Goal(Step.KEEP, "MinPaused", next_at=may_resume_at)
    forced = snapshot.override
    if forced is not None:
        # An override lets calls go: the canary has nothing to test.
        return _resumed(
            spec, snapshot.now, since=max(past(snapshot.since, snapshot.now), may_resume_at), reason="BreakerClosed"
        )
    flaps_until = _flaps_until(spec, snapshot)
    if snapshot.now < flaps_until:
        return Goal(Step.CANARY, FLAPPING, next_at=flaps_until)
    closed_at = max(past(snapshot.since, snapshot.now), flaps_until)
    if snapshot.is_on_probation and spec.resume.canary:
        closed_at += spec.resume.canary_timeout_seconds
        if snapshot.now < closed_at:
            return Goal(Step.CANARY, "Probation", next_at=closed_at)
    return _resumed(spec, snapshot.now, since=max(closed_at, may_resume_at), reason="BreakerClosed")


def _flaps_until(spec: Spec, snapshot: ScopeSnapshot) -> float:
    """Return until when only the canary may run, because the breaker has closed too often within the time."""
    flapping = spec.resume.flapping
    transitions = snapshot.record.transitions if snapshot.record else ()
    closings = [
        each.at
        for each in transitions
        if each.after is BreakerState.CLOSED and each.reason in _BY_ITSELF and each.at <= snapshot.now
    ]
    if not spec.resume.canary or len(closings) < flapping.closings:
        return 0.0
    first, last = closings[-flapping.closings], closings[-1]
    return first + flapping.within_seconds if last - first < flapping.within_seconds else 0.0


def _overlong(spec: Spec, snapshot: ScopeSnapshot, paused_at: float | None) -> Goal | None:
    if paused_at is None or spec.max_pause_seconds is None:
        return None
    ends_at = paused_at + spec.max_pause_seconds
    if snapshot.now < ends_at:
        return None
    return replace(_resumed(spec, snapshot.now, since=ends_at, reason="MaxPause"), release=snapshot.outage)


def _half_open(spec: Spec, snapshot: ScopeSnapshot, paused_at: float | None) -> Goal | None:
    if snapshot.phase is not BreakerState.HALF_OPEN:
        return None
    if paused_at is None:
        return Goal(Step.KEEP, "BreakerHalfOpen")
    may_resume_at = paused_at + spec.min_paused_seconds
    step = Step.CANARY if spec.resume.canary and snapshot.now >= may_resume_at else Step.PAUSE
    return Goal(
        step, "BreakerHalfOpen", next_at=_first(may_resume_at, _end_of_pause(spec, paused_at), after=snapshot.now)
    )


def _open(spec: Spec, snapshot: ScopeSnapshot, paused_at: float | None) -> Goal:
    opened_at, until = _open_period(snapshot)
    pause_at = past(opened_at, snapshot.now) + spec.pause_after_seconds
    if paused_at is None and snapshot.now < pause_at:
        return Goal(Step.KEEP, "BreakerOpen", next_at=min(pause_at, until))
    if (
        paused_at is None
        and snapshot.override is None
        and until <= pause_at + _trial_s(spec)
        and snapshot.now < until
    ):
        # The first trial call soon shows whether the outage is over.
        return Goal(Step.KEEP, "BreakerOpen", next_at=until)
    next_at = _first(until, _end_of_pause(spec, paused_at or snapshot.now), after=snapshot.now)
    return Goal(Step.PAUSE, "BreakerOpen", next_at=next_at)


def _trial_s(spec: Spec) -> float:
    """How much later than the grace period the first trial call may be due and still be waited for: its jitter."""
    return 0.1 * spec.pause_after_seconds + 1 if spec.pause_after_seconds else 0.0


def _open_period(snapshot: ScopeSnapshot) -> tuple[float, float]:
    breaker = snapshot.record.breaker if snapshot.record else None
    if snapshot.override is not None:
        return snapshot.since, snapshot.override.until
    return (breaker.opened_at, breaker.until) if isinstance(breaker, Open) else (0.0, 0.0)


_RULES: tuple[Callable[[Spec, ScopeSnapshot, float | None], Goal | None], ...] = (
    _suspended,
    _only_observing,
    _unknown,
    _not_asked_for,
    _rate_limited,
    _closed,
    _overlong,
    _half_open,
    _open,
)


def _resumed(spec: Spec, now: float, *, since: float, reason: str) -> Goal:
    """Return everything at once, or the step that is due if the first one was at ``since``."""
    if spec.resume.strategy is Strategy.IMMEDIATE:
        return Goal(Step.RESUME, reason, share=1.0)
    steps = math.floor(max(now - since, 0.0) / spec.resume.interval_seconds) + 1
    share = min(steps * spec.resume.step_percent / 100, 1.0)
    next_at = None if share >= 1.0 else since + steps * spec.resume.interval_seconds
    return Goal(Step.RESUME, reason, share, next_at=next_at)


def _end_of_pause(spec: Spec, paused_at: float) -> float:
    return paused_at + spec.max_pause_seconds if spec.max_pause_seconds is not None else math.inf


def _first(*moments: float, after: float) -> float | None:
    ahead = [at for at in moments if after < at < math.inf]
    return min(ahead, default=None)
