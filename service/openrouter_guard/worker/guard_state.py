"""The breaker as a worker sees it, for its code."""

from __future__ import annotations

from dataclasses import dataclass

from openrouter_guard.rules.breaker import BreakerState, HalfOpen, Open
from openrouter_guard.rules.shared_state import SharedState

from .view import View

__all__ = ["GuardState", "reason_of", "state_of"]


@dataclass(frozen=True, slots=True)
class GuardState:
    """The breaker as this worker sees it.

    Attributes:
        phase: Effective state.
        reason: Why the breaker opened; empty while closed.
        retry_after_s: Seconds until calls may be tried; 0 while they may.
        failures: Failures in a row, of the whole fleet.
        epoch: Number of the current state.
    """

    phase: BreakerState
    reason: str
    retry_after_s: float
    failures: int
    epoch: int


def state_of(view: View) -> GuardState:
    """Return the state of a view."""
    waiting = view.fleet_refusal()
    return GuardState(
        phase=view.phase,
        reason=reason_of(view.record) or (waiting[1] if waiting else ""),
        retry_after_s=waiting[0] if waiting else 0.0,
        failures=view.record.breaker.failures,
        epoch=view.record.epoch,
    )


def reason_of(record: SharedState) -> str:
    """Return why the breaker opened; empty while it is closed."""
    match record.breaker:
        case Open(reason=reason) | HalfOpen(reason=reason):
            return reason
        case _:
            return ""
