"""Events for the differences between two statuses: transitions only; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from openrouter_guard.rules.breaker import BreakerState

from .goal import FLAPPING, Step
from .status import UNKNOWN, is_true

__all__ = ["Event", "events"]


class Event(NamedTuple):
    """One line of ``kubectl describe``; ``type`` is ``Normal`` or ``Warning``."""

    type: str
    reason: str
    message: str


def events(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Event]:
    """Return the events between two statuses: transitions only."""
    tellers = (_of_breaker, _of_pause, _of_steps, _of_flapping, _of_problems, _of_mistakes, _of_freshness)
    return [event for tell in tellers for event in tell(old, new)]


def _of_breaker(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Event]:
    before, breaker = (old.get("breaker") or {}).get("state", UNKNOWN), new["breaker"]
    if breaker["state"] == before or UNKNOWN in (before, breaker["state"]):
        return []
    match breaker["state"]:
        case BreakerState.OPEN:
            words = f"Calls to OpenRouter are refused ({breaker.get('reason')}) until {breaker.get('retryAt')}"
            return [Event("Warning", "BreakerOpened", words)]
        case BreakerState.HALF_OPEN:
            return [Event("Normal", "BreakerHalfOpen", "A few trial calls to OpenRouter may go")]
        case _:
            return [Event("Normal", "BreakerClosed", "Calls to OpenRouter go through again")]


def _of_pause(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Event]:
    was, is_ = is_true(old, "Paused"), is_true(new, "Paused")
    targets = new["targets"]
    if is_ and not was:
        reason = (new.get("lastPause") or {}).get("reason", UNKNOWN)
        return [Event("Normal", "Pausing", f"{targets['summary']} workloads paused so far ({reason})")]
    if was and not is_:
        lasted = (new.get("lastResume") or {}).get("durationSeconds", 0)
        return [Event("Normal", "Resumed", f"All workloads are as they were, {lasted:g} s after the first")]
    return []


def _of_steps(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Event]:
    """Return the events of a reversal while workloads are paused: the resume begins, or ends too early."""
    before, now = (old.get("progress") or {}).get("step"), new.get("progress") or {}
    step = now.get("step")
    if before is None or step in (None, before):
        return []
    pods = f"{now['pods']} of {now['originalPods']} pods"
    if step == Step.RESUME:
        return [Event("Normal", "Resuming", f"Bringing workloads back ({now['reason']}), {pods} so far")]
    if step == Step.PAUSE and before in (Step.CANARY, Step.RESUME):
        return [
            Event(
                "Normal",
                "PausedAgain",
                f"Workloads that had come back are paused again ({now['reason']}), {pods} left",
            )
        ]
    return []


def _of_flapping(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Event]:
    before, now = _condition(old, "Paused"), _condition(new, "Paused")
    if now["reason"] != FLAPPING or before.get("reason") == FLAPPING:
        return []
    return [Event("Warning", FLAPPING, now["message"])]


def _of_problems(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Event]:
    known = {(p["target"], p["reason"]) for p in old.get("problems") or ()}
    fresh = [p for p in new["problems"] if (p["target"], p["reason"]) not in known]
    return [Event("Warning", p["reason"], f"{p['target']}: {p['message']}") for p in fresh]


def _of_mistakes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Event]:
    """Return the reason why the spec as a whole is not carried out, apart from single workloads."""
    before, now = _condition(old, "Ready"), _condition(new, "Ready")
    told = {"TargetsFailed", before.get("reason"), *(problem["reason"] for problem in new["problems"])}
    if now.get("status") != "False" or now["reason"] in told:
        return []
    return [Event("Warning", now["reason"], now["message"])]


def _of_freshness(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Event]:
    before, now = _condition(old, "StateFresh"), _condition(new, "StateFresh")
    match before.get("status"), now["status"]:
        case "True", "False" if _condition(new, "Stalled")["status"] == "False":
            return [Event("Warning", "StateUnknown", f"{now['message']}; nothing is changed meanwhile")]
        case "False", "True":
            return [Event("Normal", "StateKnown", f"{now['message']}")]
        case _:
            return []


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    return next((each for each in status.get("conditions") or () if each["type"] == kind), {})
