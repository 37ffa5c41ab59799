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
LIMIT_S = 300.0
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
        next_at_s: When time alone will change the goal; None if only an event can.
    """

    step: Step
    reason: str
    share: float = 0.0
    release: str = ""
    next_at_s: float | None = None


# -- the goal -------------------------------------------------------------------------------------------------------


def goal(spec: Spec, snapshot: ScopeSnapshot, paused_s: float | None) -> Goal:
    """Return the current goal; *paused_s* is the start of the present pause, None if nothing is paused."""
    if paused_s is not None:
        paused_s = past(paused_s, snapshot.now_s)
    found = (rule(spec, snapshot, paused_s) for rule in _RULES)
    return next(goal for goal in found if goal is not None)


def _suspended(spec: Spec, _snapshot: ScopeSnapshot, _paused_s: float | None) -> Goal | None:
    return Goal(Step.KEEP, "Suspended") if spec.suspend else None


def _only_observing(spec: Spec, _snapshot: ScopeSnapshot, _paused_s: float | None) -> Goal | None:
    return Goal(Step.RESUME, "ObserveOnly", share=1.0) if spec.mode is Mode.OBSERVE else None


def _unknown(spec: Spec, snapshot: ScopeSnapshot, paused_s: float | None) -> Goal | None:
    """Nothing changes while the state is unknown; but a dead Redis must not strand a fleet."""
    if snapshot.is_fresh:
        return None
    give_up_s = snapshot.last_known_s + spec.max_unknown_seconds
    if paused_s is None or snapshot.now_s < give_up_s:
        return Goal(Step.KEEP, "StateUnknown", next_at_s=None if paused_s is None else give_up_s)
    return _resumed(spec, snapshot.now_s, since_s=give_up_s, reason="StateUnknown")


def _not_asked_for(spec: Spec, snapshot: ScopeSnapshot, _paused_s: float | None) -> Goal | None:
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


def _rate_limited(spec: Spec, snapshot: ScopeSnapshot, paused_s: float | None) -> Goal | None:
    """A long rate limit is a reason to pause, and one that is nearly over is not.

    A begun pause then lasts until its end.
    """
    until_s = snapshot.limited_until_s
    if snapshot.phase is not BreakerState.CLOSED or not until_s or PauseOn.RATE_LIMITED not in spec.pause_on:
        return None
    if paused_s is None:
        return Goal(Step.PAUSE, "RateLimited", next_at_s=until_s) if until_s - snapshot.now_s >= LIMIT_S else None
    if snapshot.now_s >= (end_s := _end_s(spec, paused_s)):
        return replace(_resumed(spec, snapshot.now_s, since_s=end_s, reason="MaxPause"), release=snapshot.outage)
    return Goal(Step.PAUSE, "RateLimited", next_at_s=min(until_s, end_s))


def _closed(spec: Spec, snapshot: ScopeSnapshot, paused_s: float | None) -> Goal | None:
    if snapshot.phase is not BreakerState.CLOSED:
        return None
    if paused_s is None:
        return Goal(Step.RESUME, "BreakerClosed", share=1.0)
    may_s = paused_s + spec.min_paused_seconds
    if snapshot.now_s < may_s:
        return Goal(Step.KEEP, "MinPaused", next_at_s=may_s)
    forced = snapshot.override
    if forced is not None:
        # An override lets calls go: the canary has nothing to test.
        return _resumed(
            spec, snapshot.now_s, since_s=max(past(snapshot.since_s, snapshot.now_s), may_s), reason="BreakerClosed"
        )
    flaps_until_s = _flaps_until_s(spec, snapshot)
    if snapshot.now_s < flaps_until_s:
        return Goal(Step.CANARY, FLAPPING, next_at_s=flaps_until_s)
    closed_s = max(past(snapshot.since_s, snapshot.now_s), flaps_until_s)
    if snapshot.is_on_probation and spec.resume.canary:
        closed_s += spec.resume.canary_timeout_seconds
        if snapshot.now_s < closed_s:
            return Goal(Step.CANARY, "Probation", next_at_s=closed_s)
    return _resumed(spec, snapshot.now_s, since_s=max(closed_s, may_s), reason="BreakerClosed")


def _flaps_until_s(spec: Spec, snapshot: ScopeSnapshot) -> float:
    """Return until when only the canary may run, because the breaker has closed too often within the time."""
    flapping = spec.resume.flapping
    transitions = snapshot.record.transitions if snapshot.record else ()
    closings_s = [
        each.at_s
        for each in transitions
        if each.after is BreakerState.CLOSED and each.reason in _BY_ITSELF and each.at_s <= snapshot.now_s
    ]
    if not spec.resume.canary or len(closings_s) < flapping.closings:
        return 0.0
    first_s, last_s = closings_s[-flapping.closings], closings_s[-1]
    return first_s + flapping.within_seconds if last_s - first_s < flapping.within_seconds else 0.0


def _overlong(spec: Spec, snapshot: ScopeSnapshot, paused_s: float | None) -> Goal | None:
    if paused_s is None or spec.max_pause_seconds is None:
        return None
    end_s = paused_s + spec.max_pause_seconds
    if snapshot.now_s < end_s:
        return None
    return replace(_resumed(spec, snapshot.now_s, since_s=end_s, reason="MaxPause"), release=snapshot.outage)


def _half_open(spec: Spec, snapshot: ScopeSnapshot, paused_s: float | None) -> Goal | None:
    if snapshot.phase is not BreakerState.HALF_OPEN:
        return None
    if paused_s is None:
        return Goal(Step.KEEP, "BreakerHalfOpen")
    may_s = paused_s + spec.min_paused_seconds
    step = Step.CANARY if spec.resume.canary and snapshot.now_s >= may_s else Step.PAUSE
    return Goal(step, "BreakerHalfOpen", next_at_s=_first(may_s, _end_s(spec, paused_s), after_s=snapshot.now_s))


def _open(spec: Spec, snapshot: ScopeSnapshot, paused_s: float | None) -> Goal:
    opened_s, until_s = _open_from_to_s(snapshot)
    pause_s = past(opened_s, snapshot.now_s) + spec.pause_after_seconds
    if paused_s is None and snapshot.now_s < pause_s:
        return Goal(Step.KEEP, "BreakerOpen", next_at_s=min(pause_s, until_s))
    if (
        paused_s is None
        and snapshot.override is None
        and until_s <= pause_s + _trial_s(spec)
        and snapshot.now_s < until_s
    ):
        # The first trial call soon shows whether the outage is over.
        return Goal(Step.KEEP, "BreakerOpen", next_at_s=until_s)
    next_at_s = _first(until_s, _end_s(spec, paused_s or snapshot.now_s), after_s=snapshot.now_s)
    return Goal(Step.PAUSE, "BreakerOpen", next_at_s=next_at_s)


def _trial_s(spec: Spec) -> float:
    """How much later than the grace period the first trial call may be due and still be waited for: its jitter."""
    return 0.1 * spec.pause_after_seconds + 1 if spec.pause_after_seconds else 0.0


def _open_from_to_s(snapshot: ScopeSnapshot) -> tuple[float, float]:
    breaker = snapshot.record.breaker if snapshot.record else None
    if snapshot.override is not None:
        return snapshot.since_s, snapshot.override.until_s
    return (breaker.opened_at_s, breaker.until_s) if isinstance(breaker, Open) else (0.0, 0.0)


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


def _resumed(spec: Spec, now_s: float, *, since_s: float, reason: str) -> Goal:
    """Return everything at once, or the step that is due if the first one was at ``since_s``."""
    if spec.resume.strategy is Strategy.IMMEDIATE:
        return Goal(Step.RESUME, reason, share=1.0)
    steps = math.floor(max(now_s - since_s, 0.0) / spec.resume.interval_seconds) + 1
    share = min(steps * spec.resume.step_percent / 100, 1.0)
    next_at_s = None if share >= 1.0 else since_s + steps * spec.resume.interval_seconds
    return Goal(Step.RESUME, reason, share, next_at_s=next_at_s)


def _end_s(spec: Spec, paused_s: float) -> float:
    return paused_s + spec.max_pause_seconds if spec.max_pause_seconds is not None else math.inf


def _first(*moments_s: float, after_s: float) -> float | None:
    ahead = [at_s for at_s in moments_s if after_s < at_s < math.inf]
    return min(ahead, default=None)


# -- the changes ----------------------------------------------------------------------------------------------------
