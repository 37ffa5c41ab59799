"""The shared state of one scope: plain data, which can only tell its own state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from . import breaker as breakers
from . import older_writers
from .breaker import Breaker, BreakerState, Closed, Open
from .limits import Limit
from .override import Override
from .question import NEVER, Acquittal
from .redaction import redact
from .signals import OpenRouterState

__all__ = [
    "KEPT_TRANSITIONS",
    "SharedState",
    "Transition",
    "Upstream",
    "fresh",
    "next_epoch",
]

KEPT_TRANSITIONS = 8


@dataclass(frozen=True, slots=True)
class Upstream:
    """The state of OpenRouter itself. Amounts are US dollars, times Unix seconds.

    Attributes:
        balance: Remaining credit, or None if the key has no limit of its own.
        last_check_s: Time of the last write of any process: after a call, a health check, or to keep an open state
            alive. Earlier systems ignore an older state.
        checked_s: The last check by the health service; 0 if there was none.
        amounts_s: Time of the balance and the usage; 0 if they were never known.
        error_details: JSON about the last error, or empty.
        rate_limit_reset_s: End of the upstream's rate limit; 0 without one.
        claimed_reset_s: The same, written by an older writer; see :attr:`limited_until_s`.
    """

    state: OpenRouterState = OpenRouterState.ACTIVE
    message: str = "No call has been made yet"
    balance: float | None = None
    usage_today: float | None = None
    usage_month: float | None = None
    last_check_s: float = 0.0
    last_api_call_s: float = 0.0
    last_success_s: float = 0.0
    error_details: str = ""
    rate_limit_reset_s: float = 0.0
    checked_s: float = 0.0
    amounts_s: float = 0.0
    claimed_reset_s: float = 0.0

    @property
    def limited_until_s(self) -> float:
        """End of the rate limit, whoever reported it; 0 without one."""
        return max(self.rate_limit_reset_s, older_writers.claim_s(self))


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of the breaker; ``epoch`` is its number in the history."""

    epoch: int
    before: BreakerState
    after: BreakerState
    reason: str
    by: str
    at_s: float

    def __post_init__(self) -> None:
        # The name of a worker or a person: either may contain anything.
        object.__setattr__(self, "by", redact(self.by))


@dataclass(frozen=True, slots=True)
class SharedState:
    """The shared state of one scope.

    Attributes:
        epoch: Grows with every transition and never repeats; a result of an earlier epoch changes nothing.
        transitions: The last few, newest last.
        live_reporters: Workers that reported in the minute before the last report.
        override: The override; it may have ended.
        fleet: Number of workers that were live when the breaker opened, and wait for it to close.
        calls_per_minute: Rate of the whole fleet at the last measurement, over a minute or longer; 0 in the first
            minute.
        legacy_open: An older writer's value of ``circuit_breaker_open``, if it contradicts the breaker, and False if
            ``state`` is active over one that is not closed; else None.
        legacy_news: Its report about the upstream.
        older_writer_s: When an older writer was last noticed; 0 if never.
        check_slot_s: End of the taken check slot.
        good_checks: Health checks in a row that found nothing wrong while the breaker was half-open.
        good_report_s: When a worker first reported a success without a permit while half-open, without a failure
            since; 0 without one.
        check_found: Result of the last health check, whatever calls reported since; None if there was none.
        check_wanted_s: When a call last raised doubts about the key or the credit, so that a check is wanted.
        limit: The evidence for a long rate limit.
        doubted_s: When the first call of this run of failures did; earlier checks say nothing about it.
        timed_until_s: Until when the time in each state is recorded in the daily metrics; 0 if never.
        begun: Epoch in which this state began in an empty Redis; 0 if an older version has begun it.
        version: Grows with each commit of the state.
        acquittal: The last question with enough well calls.
        owed: Milliseconds in each state before a loss in Redis, by day, to be recorded with this record.
    """

    breaker: Breaker = Closed()
    epoch: int = 0
    upstream: Upstream = Upstream()
    transitions: tuple[Transition, ...] = ()
    live_reporters: int = 0
    legacy_open: bool | None = None
    check_slot_s: float = 0.0
    good_checks: int = 0
    check_found: OpenRouterState | None = None
    check_wanted_s: float = 0.0
    calls_per_minute: float = 0.0
    fleet: int = 0
    override: Override | None = None
    timed_until_s: float = 0.0
    begun: int = 0
    version: int = 0
    doubted_s: float = 0.0
    legacy_news: older_writers.News = older_writers.News.NOTHING
    older_writer_s: float = 0.0
    limit: Limit = Limit()
    acquittal: Acquittal = NEVER
    good_report_s: float = 0.0
    owed: Mapping[float, Mapping[BreakerState, int]] = field(default_factory=dict, compare=False)

    def phase(self, now_s: float) -> BreakerState:
        """Return the effective state: the override, else the stored state by the time."""
        standing = self.standing(now_s)
        if standing is not None:
            return BreakerState.OPEN if standing.is_open else BreakerState.CLOSED
        return breakers.phase(self.breaker, now_s)

    def kept_until_s(self, now_s: float) -> float:
        """Return the latest known end of all waits; 0 without one."""
        limit_s = self.upstream.limited_until_s if self.upstream.limited_until_s > now_s else 0.0
        open_s = self.breaker.until_s if isinstance(self.breaker, Open) else 0.0
        return max(limit_s, open_s, self.override.until_s if self.override else 0.0)

    def standing(self, now_s: float) -> Override | None:
        """Return the override, unless it has ended."""
        return self.override if self.override is not None and self.override.until_s > now_s else None


def fresh(now_s: float) -> SharedState:
    """Return the record of a fleet without a known state."""
    return SharedState(epoch=next_epoch(0, now_s))


def next_epoch(epoch: int, now_s: float) -> int:
    """Return an epoch that was never used, even if the old one was lost with the data."""
    return max(epoch + 1, int(now_s * 1000))
