"""Plans the state of the workloads: pure functions of the spec and the snapshot.

A goal applies to all targets together, and follows from the breaker, the spec and the time. The changes are the
differences to it. Both are computed again each time, so a missed event or a crash between two writes leaves nothing
that the next round does not see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from openrouter_operator.workloads.kinds import Value
from openrouter_operator.workloads.workload import Change, Pause, Workload, forgets, raised, returns

from .contests import is_fought, put_back
from .goal import Goal, Step
from .snapshot import ScopeSnapshot
from .targets import Candidate, Owner, Targets

__all__ = ["changes", "orphaned"]


def changes(goal: Goal, snapshot: ScopeSnapshot, targets: Targets) -> list[Change]:
    """Return the changes to reach the goal; less important workloads are paused first and come back last."""
    if goal.step is Step.KEEP:
        return []
    owner, owned = targets.owner, targets.owned
    wanted = _wanted(goal, [candidate for candidate in owned if candidate.stays])
    found = [_of_paused(goal, owner, snapshot, c, wanted.get(c.workload.uid)) for c in owned]
    if goal.step is Step.PAUSE or (goal.step is Step.CANARY and owned):
        found += [_paused(c, owner, snapshot) for c in targets.pausable(snapshot.outage)]
    made = [change for change in found if change is not None]
    changed = {change.workload.uid for change in made}
    litter = [c.workload for c in targets.candidates if c.workload.has_litter or _is_over(c.workload, snapshot)]
    made += [forgets(workload) for workload in litter if workload.uid not in changed]
    return sorted(made, key=lambda change: change.rank)


def _is_over(workload: Workload, snapshot: ScopeSnapshot) -> bool:
    """Return whether the outage is over in which the workload was left alone, whoever names it by now."""
    is_ours = workload.released.startswith(f"{snapshot.scope}/")
    is_others = workload.pause is not None or workload.damage or workload.is_controlled or workload.is_going
    return snapshot.is_fresh and is_ours and not is_others and workload.released != snapshot.outage


def _paused(candidate: Candidate, owner: Owner, snapshot: ScopeSnapshot) -> Change:
    workload = candidate.workload
    value = _value(candidate, candidate.paused_pods)
    pods = candidate.pods_behind
    at, uid = snapshot.now, workload.uid
    pause = Pause(owner.uid, owner.name, snapshot.epoch, workload.value, value, at=at, pods=pods, uid=uid)
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
        if wanted is not None and workload.pods > wanted and is_fought(candidate, snapshot.now):
            return put_back(candidate, _value(candidate, wanted), snapshot.now)
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


def orphaned(targets: Targets) -> list[Change]:
    """Return the changes that leave everything paused.

    Then only a person restores it, or a new resource of that name.
    """
    ours = [(c.workload, c.workload.pause) for c in targets.owned if not c.workload.is_going]
    return [
        Change(workload, workload.value, replace(pause, is_orphaned=True), is_written=False)
        for workload, pause in ours
        if pause is not None and not pause.is_orphaned
    ]


def _is_autoscalers_doing(candidate: Candidate) -> bool:
    """Return whether its autoscaler may have changed it: it does if pods are left, and never from 0."""
    workload = candidate.workload
    return candidate.has_autoscaler and not workload.is_by_hand and workload.set_pods > 0 and workload.pods > 0


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
