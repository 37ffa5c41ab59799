"""Events on a workload about its own pause: one as it begins, one as it ends; pure."""

from __future__ import annotations

from dataclasses import replace

from openrouter_guard.rules.codec import iso
from openrouter_operator.resource.spec import Spec
from openrouter_operator.workloads.workload import OPT, Change, Pause, Workload

from .events import Event
from .goal import Goal
from .snapshot import ScopeSnapshot

__all__ = ["notice", "until"]


def notice(change: Change, who: str, why: str, until: str = "") -> Event | None:
    """Return the event for a change; None for a step, and for changes of the annotation only.

    Args:
        change: A change that was made.
        who: The acting resource, such as ``OpenRouterStatus default``.
        why: Reason for the pause or the resume, in a few words.
        until: Latest end of the pause, as text.
    """
    workload, now = change.workload, change.pause
    was = workload.pause or workload.copied
    if was is None and now is not None:
        end = f" until the breaker closes, {until}" if until else " until the breaker closes"
        how = f'To keep it running in outages, annotate it with {OPT}: "false"'
        return Event("Normal", "Paused", f"{_done(change)} by {who} ({why}){end}. {how}")
    if was is not None and now is not None and now.contest != was.contest:
        return Event("Normal", "PutBack", _put_back(change, now))
    if was is None or now is not None:
        return None
    if change.is_written and change.became is not None and change.is_altered:
        return Event("Warning", "ChangedByAdmission", f"{_altered(change, change.became)}, by {who} ({why})")
    if change.is_written:
        return Event("Normal", "Resumed", f"{_done(change)} by {who} ({why})")
    words = f"{who} drops its pause and leaves it as it was changed ({workload.value})"
    return Event("Normal", "LetGo", words)


def _altered(change: Change, became: Workload) -> str:
    control = change.workload.kind.control
    what = f"{control.pods(change.value)} pods were" if control.moves_pods else f"{change.value!r} was"
    got = control.pods(became.value) if control.moves_pods else repr(became.value)
    return f"It came back, and {what} asked for: an admission policy or webhook made {got} of that"


def _put_back(change: Change, pause: Pause) -> str:
    who = pause.contest.by if pause.contest and pause.contest.by else "somebody"
    later = replace(change.workload, pause=pause, resume_to="").original_pods
    what = f"{later} pods run" if change.workload.kind.control.moves_pods else "it goes on"
    return f"{who} changed it during the pause, which holds: {what} once it is over"


def until(spec: Spec, goal: Goal, snapshot: ScopeSnapshot) -> str:
    """Return the latest end of a pause that begins now, as text; empty if it depends on the breaker alone."""
    ends = [snapshot.now + spec.max_pause_seconds] if spec.max_pause_seconds is not None else []
    if snapshot.override is not None:
        ends.append(snapshot.override.until)
    elif goal.reason == "RateLimited":
        ends.append(snapshot.limited_until)
    return f"by {iso(float(int(min(ends)))).replace('+00:00', 'Z')} at the latest" if ends else ""


def _done(change: Change) -> str:
    """Return the action, in the style of the controllers of Kubernetes and KEDA."""
    workload, control, ends = change.workload, change.workload.kind.control, change.pause is None
    if not control.moves_pods:
        return "Resumed" if ends else "Suspended"
    if control.held is not None and control.held in (change.value, workload.value):
        return "Let scale again" if ends else "Held at the pods that it has"
    return f"Scaled from {workload.pods} to {control.pods(change.value)} pods"
