"""The override of a resource: applied once per generation, and withdrawn only if it is its own; pure."""

from __future__ import annotations

from openrouter_guard.rules.codec import parse_iso
from openrouter_guard.rules.override import Override, OverrideKind
from openrouter_guard.rules.shared_state import SharedState, fresh
from openrouter_guard.rules.transitions import overridden, released

from .spec import Action, OverrideSpec

__all__ = ["ACTIONS", "decided", "wished"]

ACTIONS = {
    Action.FORCE_OPEN: OverrideKind.FORCED_OPEN,
    Action.FORCE_CLOSED: OverrideKind.FORCED_CLOSED,
    Action.DISABLED: OverrideKind.DISABLED,
}


def wished(asked: OverrideSpec, who: str) -> Override | None:
    """Return the override of a spec; None without one."""
    kind = ACTIONS.get(asked.action)
    return Override(kind, who, asked.reason, parse_iso(asked.until)) if kind else None


def decided(record: SharedState | None, wish: Override | None, who: str, now: float) -> SharedState | None:
    """Return the next record: with the wanted override while that lasts, or without the one set by *who*."""
    standing = record.standing(now) if record else None
    if wish is not None and wish.until > now:
        return record if standing == wish else overridden(record or fresh(now), wish, now)
    if record is not None and standing is not None and standing.who == who:
        return released(record, by=who, now=now)
    return record
