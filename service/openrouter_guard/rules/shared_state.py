"""What the fleet shares about one scope: plain data, which says itself only what state it is in."""

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
    """What is known of OpenRouter itself. Amounts are US dollars, times Unix seconds.

    Attributes:
        balance: What is left, or None where the key has no limit of its own.
        last_check_s: When anybody last wrote what it knows: a call of any worker, a health check, or whoever keeps an
            open state alive. Earlier systems take an older state for none.
        checked_s: The last check by the health service; 0 if there was none.
        amounts_s: When the balance and the usage were last known; 0 if they never were.
        error_details: JSON about the last error, or empty.
        rate_limit_reset_s: Calls are not permitted before, as the upstream said; 0 if it did not.
        claimed_reset_s: The same as an older writer says; see :attr:`limited_until_s`.
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
        """Calls are not permitted before, whoever says so; 0 if nobody does."""
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
        # The name of a worker or a person: either may have put anything into it.
        object.__setattr__(self, "by", redact(self.by))


@dataclass(frozen=True, slots=True)
class SharedState:
    """The shared state of one scope.

    Attributes:
        epoch: Grows with every transition and never repeats; a result of an earlier epoch changes nothing.
        transitions: The last few, newest last.
        live_reporters: Workers that reported in the minute before the last report.
        override: What a person decided; it may have ended.
        fleet: The workers that were live when the breaker opened: so many wait for it to close.
        calls_per_minute: Of the whole fleet, as last measured, over a minute or longer; 0 in the first minute.
        legacy_open: What an older writer says of the breaker in ``circuit_breaker_open``, where that
            contradicts the breaker, and False where ``state`` is active over one that is not closed; else None.
        legacy_news: What it says of the upstream then.
        older_writer_s: When one was last noticed; 0 if none was.
        check_slot_s: The health check is taken by somebody until then.
        good_checks: Health checks in a row that found nothing wrong while the breaker was half-open.
        good_report_s: When a worker first reported a success without a permit while half-open, and no failure since;
            0 if none did.
        check_found: What the last health check found, whatever calls said since; None if there was none.
        check_wanted_s: When a call last gave reason to doubt the key or the credit, so that a check is wanted.
        limit: What stands behind a long rate limit.
        doubted_s: When the first call of this run of failures did; what was checked before says nothing about it.
        timed_until_s: Until when the time in each state is in the daily metrics; 0 if none has been put there.
        begun: In which epoch this state began in an empty Redis; 0 if an older version has begun it.
        version: Grows with each commit of the state, which adds it.
        acquittal: The last time that the fleet was asked, and enough of its calls were well.
        owed: Milliseconds in each state before Redis lost it, by day, that are to be put down with this record.
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
        """The effective state: what a person decided, else what is stored and the time."""
        standing = self.standing(now_s)
        if standing is not None:
            return BreakerState.OPEN if standing.is_open else BreakerState.CLOSED
        return breakers.phase(self.breaker, now_s)

    def kept_until_s(self, now_s: float) -> float:
        """The latest end of what keeps calls waiting, known by now; 0 if nothing does."""
        limit_s = self.upstream.limited_until_s if self.upstream.limited_until_s > now_s else 0.0
        open_s = self.breaker.until_s if isinstance(self.breaker, Open) else 0.0
        return max(limit_s, open_s, self.override.until_s if self.override else 0.0)

    def standing(self, now_s: float) -> Override | None:
        """The override, unless it has ended."""
        return self.override if self.override is not None and self.override.until_s > now_s else None


def fresh(now_s: float) -> SharedState:
    """The record of a fleet about which nothing is known yet."""
    return SharedState(epoch=next_epoch(0, now_s))


def next_epoch(epoch: int, now_s: float) -> int:
    """An epoch that was never used, even if the old one was lost with the data."""
    return max(epoch + 1, int(now_s * 1000))
