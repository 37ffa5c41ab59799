"""A snapshot of a scope; pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from openrouter_guard.keys import DEFAULT_SCOPE
from openrouter_guard.rules.breaker import BreakerState, Closed
from openrouter_guard.rules.codec import iso
from openrouter_guard.rules.override import Override
from openrouter_guard.rules.parsing import line_of
from openrouter_guard.rules.shared_state import SharedState

__all__ = ["ScopeSnapshot", "readable"]


@dataclass(frozen=True, slots=True)
class ScopeSnapshot:
    """A snapshot of a scope. Times are Unix seconds of the Redis server's clock.

    Attributes:
        record: The last read; None if nothing is known.
        is_fresh: Whether it is the present state; else it is the last known one.
        last_known_at: When it was last the present state.
        since: When the breaker entered its state.
        error: The reason why the state cannot be read; empty if it can.
        scope: Scope of the state.
    """

    record: SharedState | None
    now: float
    is_fresh: bool
    last_known_at: float
    since: float = 0.0
    error: str = ""
    scope: str = DEFAULT_SCOPE

    @property
    def phase(self) -> BreakerState | None:
        return self.record.phase(self.now) if self.record else None

    @property
    def outage(self) -> str:
        """The present outage, identified by the scope and its start; empty while calls may go.

        If an override forces the breaker open, identified by its end.
        """
        if self.record is None:
            return ""
        if self.phase is BreakerState.CLOSED:
            limited_until = self.limited_until
            return f"{self.scope}/limited until {iso(limited_until)}" if limited_until else ""
        forced = self.override
        at = forced.until if forced else self.record.breaker.opened_at
        return f"{self.scope}/{iso(at)}"

    @property
    def closed_at(self) -> float:
        """When the breaker last closed; 0 if unknown, or if it is ahead of a clock that was set back."""
        moves = self.record.transitions if self.record else ()
        closings = (move.at for move in moves if move.after is BreakerState.CLOSED and move.at <= self.now)
        return max(closings, default=0.0)

    @property
    def limited_until(self) -> float:
        """End of the rate limit; 0 without one."""
        until = self.record.upstream.limited_until if self.record else 0.0
        return until if until > self.now else 0.0

    @property
    def override(self) -> Override | None:
        """The override, while it stands."""
        return self.record.standing(self.now) if self.record else None

    @property
    def cause(self) -> str:
        """The reason why calls may not go, a word or the override's text; empty while they may."""
        forced = self.override
        if forced is not None:
            return f"{forced.kind} by {forced.who} ({forced.why})"
        return str(self.record.breaker.reason) if self.record else ""

    @property
    def is_on_probation(self) -> bool:
        """Whether only health checks have closed the breaker."""
        return self.record is not None and self.record.breaker.on_probation

    @property
    def epoch(self) -> int:
        return self.record.epoch if self.record else 0


def readable(record: SharedState) -> SharedState:
    """Return the record with each text as one short line, for conditions, events and logs.

    Any client of Redis, and any upstream, may have written anything.
    """
    forced, breaker = record.override, record.breaker
    if forced is not None:
        forced = replace(forced, who=line_of(forced.who), why=line_of(forced.why))
    if not isinstance(breaker, Closed):
        breaker = replace(breaker, reason=line_of(breaker.reason))
    upstream = replace(record.upstream, message=line_of(record.upstream.message))
    return replace(record, upstream=upstream, breaker=breaker, override=forced)
