"""The vocabulary of the log lines of workers, service and operator: which facts a line has, and under which names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from .breaker import BreakerState, Open
from .codec import iso
from .override import OverrideKind
from .redaction import redact
from .shared_state import SharedState, Transition

__all__ = ["CHANGE", "PAUSE", "Facts", "of_change", "of_pause", "of_phase"]

Facts: TypeAlias = Mapping[str, str | int]
CHANGE = ("scope", "from", "to", "reason", "by", "until", "why", "epoch")
"""Of a change of the breaker; ``epoch`` is the same in all parts. ``by``, ``until`` and ``why`` may be missing."""
PAUSE = ("scope", "namespace", "workload", "action", "reason", "epoch")
"""Of a pause or a resume; ``epoch`` is that of the change it follows. Without a known scope, both are missing."""
_OVERRIDES = frozenset(OverrideKind)


def of_change(change: Transition, record: SharedState, scope: str, now: float) -> Facts:
    """Return the facts of a change of *record*: its end and the words of an override are known of the latest only."""
    facts = {"from": change.before.value, "to": change.after.value, "reason": change.reason, "by": change.by}
    until, why = _end(change, record, now)
    return _present(scope, {**facts, "until": until, "why": why}, change.epoch)


def of_phase(before: BreakerState, record: SharedState, scope: str, now: float) -> Facts:
    """Return the facts of a new effective state: of the last change, or of the passing of time."""
    after, latest = record.phase(now), record.transitions[-1] if record.transitions else None
    if latest is not None and latest.after is after:
        return {**of_change(latest, record, scope, now), "from": before.value}
    by_time = "reset_timeout" if after is BreakerState.HALF_OPEN else "unknown"
    return _present(scope, {"from": before.value, "to": after.value, "reason": by_time}, record.epoch)


def of_pause(action: str, workload: str, namespace: str, *, reason: str, scope: str = "", epoch: int = 0) -> Facts:
    """Return the facts of a change of one workload; *action* is the reason of its event, such as ``Paused``."""
    facts = {"namespace": namespace, "workload": workload, "action": action, "reason": reason}
    return _present(scope, facts, epoch)


def _end(change: Transition, record: SharedState, now: float) -> tuple[str, str]:
    if not record.transitions or change is not record.transitions[-1]:
        return "", ""
    override = record.standing(now)
    if override is not None and change.reason in _OVERRIDES and change.reason == override.kind:
        return iso(override.until), override.why
    breaker = record.breaker
    return (iso(breaker.until), "") if change.after is BreakerState.OPEN and isinstance(breaker, Open) else ("", "")


def _present(scope: str, facts: Mapping[str, str], epoch: int) -> Facts:
    said = {name: redact(fact) for name, fact in {"scope": scope, **facts}.items() if fact}
    return {**said, "epoch": epoch} if epoch else said
