"""What is worth telling between two statuses: transitions, and nothing that repeats; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from openrouter_guard.rules.breaker import Phase

from .conditions import UNKNOWN, is_true

__all__ = ["Event", "events"]


class Event(NamedTuple):
    """One line of ``kubectl describe``; ``type`` is ``Normal`` or ``Warning``."""

    type: str
    reason: str
    message: str


def events(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Event]:
    """What is worth telling between two statuses: transitions, and nothing that repeats."""
    return [event for tell in (_of_breaker, _of_pause, _of_problems, _of_freshness) for event in tell(old, new)]


def _of_breaker(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Event]:
    before, breaker = (old.get("breaker") or {}).get("state", UNKNOWN), new["breaker"]
    if breaker["state"] == before or UNKNOWN in (before, breaker["state"]):
        return []
    match breaker["state"]:
        case Phase.OPEN:
            words = f"Calls to OpenRouter are refused ({breaker.get('reason')}) until {breaker.get('retryAt')}"
            return [Event("Warning", "BreakerOpened", words)]
        case Phase.HALF_OPEN:
            return [Event("Normal", "BreakerHalfOpen", "A few test calls to OpenRouter may go")]
        case _:
            return [Event("Normal", "BreakerClosed", "Calls to OpenRouter go through again")]


def _of_pause(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Event]:
    was, is_ = is_true(old, "Paused"), is_true(new, "Paused")
    targets = new["targets"]
    if is_ and not was:
        reason = (new.get("lastPause") or {}).get("reason", UNKNOWN)
        return [Event("Normal", "Pausing", f"Pausing workloads, {targets['summary']} so far ({reason})")]
    if was and not is_:
        lasted = (new.get("lastResume") or {}).get("durationSeconds", 0)
        return [Event("Normal", "Resumed", f"All workloads are as they were, {lasted:g} s after the first")]
    return []


def _of_problems(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Event]:
    known = {(p["target"], p["reason"]) for p in old.get("problems") or ()}
    fresh = [p for p in new["problems"] if (p["target"], p["reason"]) not in known]
    return [Event("Warning", p["reason"], f"{p['target']}: {p['message']}") for p in fresh]


def _of_freshness(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Event]:
    was, is_ = is_true(old, "StateFresh"), is_true(new, "StateFresh")
    if was and not is_:
        said = next(c["message"] for c in new["conditions"] if c["type"] == "StateFresh")
        return [Event("Warning", "StateUnknown", f"{said}; nothing is changed meanwhile")]
    return []
