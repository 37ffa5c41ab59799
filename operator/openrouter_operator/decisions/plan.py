"""Plans the state of the workloads: pure functions of the spec and the snapshot.

A goal applies to all targets together, and follows from the breaker, the spec and the time. The changes are the
differences to it. Both are computed again each time, so a missed event or a crash between two writes leaves nothing
that the next round does not see.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from openrouter_guard.rules.breaker import BreakerState, Open
from openrouter_guard.rules.signals import ErrorType, OpenRouterState
from openrouter_operator.resource.spec import Mode, PauseOn, Spec, Strategy
from openrouter_operator.workloads.kinds import Value
from openrouter_operator.workloads.workload import Change, Pause, Workload, forgets, raised, returns

from .contests import is_fought, past, put_back
from .snapshot import ScopeSnapshot
from .targets import Candidate, Owner, skip

__all__ = ["FLAPPING", "Goal", "Step", "changes", "goal", "orphaned"]


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
    reason = getattr(snapshot.record.breaker, "reason", "") if snapshot.record else ""
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


def changes(goal: Goal, owner: Owner, snapshot: ScopeSnapshot, candidates: Sequence[Candidate]) -> list[Change]:
    """Return the changes to reach the goal; less important workloads are paused first and come back last."""
    if goal.step is Step.KEEP:
        return []
    ours = [candidate for candidate in candidates if candidate.is_paused_by(owner)]
    wanted = _wanted(goal, [candidate for candidate in ours if candidate.stays])
    found = [_of_paused(goal, owner, snapshot, c, wanted.get(c.workload.uid)) for c in ours]
    if goal.step is Step.PAUSE or (goal.step is Step.CANARY and ours):
        found += [_paused(c, owner, snapshot) for c in candidates if _is_pausable(c, owner, snapshot.outage)]
    made = [change for change in found if change is not None]
    changed = {change.workload.uid for change in made}
    litter = [c.workload for c in candidates if c.workload.has_litter or _is_over(c.workload, snapshot)]
    made += [forgets(workload) for workload in litter if workload.uid not in changed]
    return sorted(made, key=lambda change: change.rank)


def _is_pausable(candidate: Candidate, owner: Owner, outage: str) -> bool:
    paused = candidate.is_paused_by(owner)
    return candidate.stays and not paused and skip(candidate, owner, outage) is None


def _is_over(workload: Workload, snapshot: ScopeSnapshot) -> bool:
    """Return whether the outage is over in which the workload was left alone, whoever names it by now."""
    is_ours = workload.released.startswith(f"{snapshot.scope}/")
    is_others = workload.pause is not None or workload.damage or workload.is_controlled or workload.is_going
    return snapshot.is_fresh and is_ours and not is_others and workload.released != snapshot.outage


def _paused(candidate: Candidate, owner: Owner, snapshot: ScopeSnapshot) -> Change:
    workload = candidate.workload
    value = _value(candidate, candidate.paused_pods)
    pods = candidate.pods_behind
    at_s, uid = snapshot.now_s, workload.uid
    pause = Pause(owner.uid, owner.name, snapshot.epoch, workload.value, value, at_s=at_s, pods=pods, uid=uid)
    return Change(workload, value, pause, rank=candidate.options.priority)


def _value(candidate: Candidate, pods: int) -> Value:
    """Return the value for this many pods; Hold leaves the present ones."""
    control = candidate.workload.kind.control
    return control.held if candidate.options.holds and pods == 0 else control.at(pods)


def _of_paused(
    goal: Goal, owner: Owner, snapshot: ScopeSnapshot, candidate: Candidate, wanted: int | None
) -> Change | None:
    """Return the change of a paused workload; *wanted* is its number of pods, None for the original."""
    workload, pause, options = candidate.workload, candidate.workload.pause, candidate.options
    if pause is None or workload.is_going:
        return None
    if candidate.is_rollouts:
        return forgets(workload)
    if not workload.is_as_we_set_it and not _is_autoscalers_doing(candidate):
        if wanted is not None and workload.pods > wanted and is_fought(candidate, snapshot.now_s):
            return put_back(candidate, _value(candidate, wanted), snapshot.now_s)
        # A foreign change stands: release the workload, and its original.
        return forgets(workload, released=snapshot.outage)
    if change := raised(workload):
        return change
    if wanted is None and workload.is_stripped and not workload.is_unkept:
        # Its new number must be in the annotation first: the admission policy allows no other replicas.
        return Change(workload, workload.value, pause, is_written=False, rank=-options.priority)
    if wanted is None:
        if not workload.is_as_we_set_it and pause.set_to == pause.original:
            # It is back already, and its autoscaler has changed it since.
            return forgets(workload, released=goal.release)
        return replace(returns(workload, released=goal.release), rank=-options.priority)
    value = _value(candidate, wanted)
    if value == pause.set_to and not (workload.is_stripped and workload.is_mendable):
        return None
    rank = options.priority * (1 if wanted < workload.set_pods else -1)
    pause = replace(pause, set_to=value, owner_uid=owner.uid, is_orphaned=False)
    return Change(workload, value, pause, rank=rank)


def orphaned(candidates: Iterable[Candidate], owner: Owner) -> list[Change]:
    """Return the changes that leave everything paused.

    Then only a person restores it, or a new resource of that name.
    """
    ours = [(c.workload, c.workload.pause) for c in candidates if c.is_paused_by(owner) and not c.workload.is_going]
    return [
        Change(workload, workload.value, replace(pause, is_orphaned=True), is_written=False)
        for workload, pause in ours
        if pause is not None and not pause.is_orphaned
    ]


def _is_autoscalers_doing(candidate: Candidate) -> bool:
    """Return whether an autoscaler may have changed it: it does if pods are left, and never from 0."""
    return candidate.has_autoscaler and candidate.workload.set_pods > 0 and candidate.workload.pods > 0


def _wanted(goal: Goal, paused: Sequence[Candidate]) -> Mapping[str, int]:
    """Return the number of pods of each paused workload; one that is not listed gets its original number."""
    if goal.step is Step.RESUME:
        return _shares(paused, goal.share)
    canary = _canary(paused) if goal.step is Step.CANARY else None
    return {c.workload.uid: max(_floor(c), int(c.workload.uid == canary)) for c in paused}


def _floor(candidate: Candidate) -> int:
    """Return the pods that keep running; a workload raised during the pause gets no more than its original."""
    return min(candidate.paused_pods, candidate.workload.original_pods)


def _canary(paused: Sequence[Candidate]) -> str | None:
    """Return the canary's workload: the one that runs already, else the most important, first by name."""
    able = [
        c
        for c in paused
        if c.workload.kind.control.moves_pods
        and not c.comes_back_whole
        and not c.workload.is_going
        and c.workload.original_pods > 0
    ]
    first = min(able, key=lambda c: (c.workload.set_pods == 0, -c.options.priority, c.workload.name), default=None)
    return first.workload.uid if first else None


def _shares(paused: Sequence[Candidate], share: float) -> Mapping[str, int]:
    """Distribute a share of all original pods, rounded up, to the most important first; never fewer than run now.

    A workload with an autoscaler cannot come back in part. It comes back whole as long as any of the share is left,
    so that the steps are no larger than necessary.
    """
    if share >= 1.0:
        return {}
    # In whole percent, as in the spec: 7 % of 100 pods are 7, and not 8 because of a binary fraction.
    percent = round(share * 100)
    in_part = [c for c in paused if not c.comes_back_whole]
    whole = [c for c in paused if c.has_autoscaler and not c.options.holds]
    left = -(-sum(c.workload.original_pods for c in (*in_part, *whole)) * percent // 100)
    wanted: dict[str, int] = {c.workload.uid: c.workload.set_pods for c in paused}
    for priority in sorted({c.options.priority for c in (*in_part, *whole)}, reverse=True):
        tier = _tier(in_part, priority)
        spread = _spread(max(left, 0), [c.workload.original_pods for c in tier])
        left -= sum(spread)
        wanted |= {c.workload.uid: max(n, c.workload.set_pods) for c, n in zip(tier, spread, strict=True)}
        for candidate in _tier(whole, priority):
            if left > 0:
                wanted[candidate.workload.uid] = candidate.workload.original_pods
                left -= candidate.workload.original_pods
    return wanted


def _tier(candidates: Sequence[Candidate], priority: int) -> list[Candidate]:
    """Return those of one priority, by name."""
    return sorted((c for c in candidates if c.options.priority == priority), key=lambda c: c.workload.name)


def _spread(pods: int, originals: Sequence[int]) -> list[int]:
    """Distribute this many pods over workloads, each in proportion and none above its original."""
    total = sum(originals)
    pods = min(pods, total)
    if not pods:
        return [0] * len(originals)
    whole = [original * pods // total for original in originals]
    over = pods - sum(whole)
    # Rounding down leaves less than one for each that has not got all of its own.
    for nth, original in enumerate(originals):
        if over and whole[nth] < original:
            whole[nth] += 1
            over -= 1
    return whole
