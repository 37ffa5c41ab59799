"""The shared state of one scope: plain data, which can only tell its own state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from . import breaker as breakers
from .breaker import Breaker, BreakerState, Closed, Open
from .override import Override
from .question import NEVER, Acquittal
from .signals import OpenRouterState
from .text import WORD_MOST, words_of

__all__ = [
    "KEPT_TRANSITIONS",
    "Limit",
    "News",
    "SharedState",
    "Transition",
    "Upstream",
    "fresh",
    "next_epoch",
]

KEPT_TRANSITIONS = 8
_GUESSED = "Worker reported: rate_limited"
"""An older writer's message for a rate limit; its reset is a guess, of a minute."""
_GUESS_S, _GUESS_HOLDS_S = 60.0, 10.0


@dataclass(frozen=True, slots=True)
class Upstream:
    """The state of OpenRouter itself. Amounts are US dollars, times Unix seconds.

    Attributes:
        balance: Remaining credit, or None if the key has no limit of its own.
        last_check_at: Time of the last write of any process: after a call, a health check, or to keep an open state
            alive. Earlier systems ignore an older state.
        checked_at: The last check by the health service; 0 if there was none.
        amounts_at: Time of the balance and the usage; 0 if they were never known.
        error_details: JSON about the last error, or empty.
        rate_limit_reset_at: End of the upstream's rate limit; 0 without one.
        claimed_reset_at: The same, written by an older writer; see :attr:`limited_until`.
    """

    state: OpenRouterState = OpenRouterState.ACTIVE
    message: str = "No call has been made yet"
    balance: float | None = None
    usage_today: float | None = None
    usage_month: float | None = None
    last_check_at: float = 0.0
    last_api_call_at: float = 0.0
    last_success_at: float = 0.0
    error_details: str = ""
    rate_limit_reset_at: float = 0.0
    checked_at: float = 0.0
    amounts_at: float = 0.0
    claimed_reset_at: float = 0.0

    @property
    def limited_until(self) -> float:
        """End of the rate limit, whoever reported it; 0 without one."""
        return max(self.rate_limit_reset_at, self._claimed_until)

    @property
    def _claimed_until(self) -> float:
        """End of a wait that an older writer wrote; 0 without one.

        It holds while the state says so too: the next success ends it. The writer's reset is a guess. A 429 without a
        time is otherwise one failure, so this one holds for ten seconds.
        """
        if self.state is not OpenRouterState.RATE_LIMITED or not self.claimed_reset_at:
            return 0.0
        is_guess = self.message == _GUESSED
        return self.claimed_reset_at - (_GUESS_S - _GUESS_HOLDS_S if is_guess else 0.0)


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of the breaker; ``epoch`` is its number in the history."""

    epoch: int
    before: BreakerState
    after: BreakerState
    reason: str
    by: str
    at: float

    def __post_init__(self) -> None:
        # The name of a worker or a person: either may contain anything.
        object.__setattr__(self, "reason", words_of(self.reason, WORD_MOST))
        object.__setattr__(self, "by", words_of(self.by))


@dataclass(frozen=True, slots=True)
class Limit:
    """The evidence for a long rate limit.

    Attributes:
        by: The reporter of a long wait that is not fully confirmed; empty if there is none.
        at: When it reported.
        until: End of the wait that it claims.
        retest_at: When one call may test the limit; 0 without a long limit.
        looker: Owner of the testing call.
    """

    by: str = ""
    at: float = 0.0
    until: float = 0.0
    retest_at: float = 0.0
    looker: str = ""


class News(StrEnum):
    """An older writer's report about the upstream while the breaker is not closed."""

    NOTHING = ""
    CALL = "call"
    """A worker's call succeeded."""
    CHECK = "check"
    """The key works."""


@dataclass(frozen=True, slots=True)
class SharedState:
    """The shared state of one scope.

    Attributes:
        epoch: Grows with every transition and never repeats; a result of an earlier epoch changes nothing.
        transitions: The last few, newest last.
        live_reporters: Workers that reported in the minute before the last report.
        mute_reporters: Those of them that cannot answer a question, as over HTTP; counted during a run of failures.
        override: The override; it may have ended.
        fleet: Number of workers that were live when the breaker opened, and wait for it to close.
        calls_per_minute: Rate of the whole fleet at the last measurement, over a minute or longer; 0 in the first
            minute.
        legacy_open: An older writer's value of ``circuit_breaker_open``, if it contradicts the breaker, and False if
            ``state`` is active over one that is not closed; else None.
        legacy_news: Its report about the upstream.
        older_writer_at: When an older writer was last noticed; 0 if never.
        check_slot_at: End of the taken check slot.
        good_checks: Health checks in a row that found nothing wrong while the breaker was half-open.
        good_report_at: When a worker first reported a success without a permit while half-open, without a failure
            since; 0 without one.
        check_found: Result of the last health check, whatever calls reported since; None if there was none.
        check_wanted_at: When a call last raised doubts about the key or the credit, so that a check is wanted.
        limit: The evidence for a long rate limit.
        doubted_at: When the first call of this run of failures did; earlier checks say nothing about it.
        timed_until: Until when the time in each state is recorded in the daily metrics; 0 if never.
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
    check_slot_at: float = 0.0
    good_checks: int = 0
    check_found: OpenRouterState | None = None
    check_wanted_at: float = 0.0
    calls_per_minute: float = 0.0
    fleet: int = 0
    override: Override | None = None
    timed_until: float = 0.0
    begun: int = 0
    version: int = 0
    doubted_at: float = 0.0
    legacy_news: News = News.NOTHING
    older_writer_at: float = 0.0
    limit: Limit = Limit()
    acquittal: Acquittal = NEVER
    good_report_at: float = 0.0
    mute_reporters: int = 0
    owed: Mapping[float, Mapping[BreakerState, int]] = field(default_factory=dict, compare=False)

    def phase(self, now: float) -> BreakerState:
        """Return the effective state: the override, else the stored state by the time."""
        standing = self.standing(now)
        if standing is not None:
            return BreakerState.OPEN if standing.is_open else BreakerState.CLOSED
        return breakers.phase(self.breaker, now)

    def kept_until(self, now: float) -> float:
        """Return the latest known end of all waits; 0 without one."""
        limited_until = self.upstream.limited_until if self.upstream.limited_until > now else 0.0
        open_until = self.breaker.until if isinstance(self.breaker, Open) else 0.0
        return max(limited_until, open_until, self.override.until if self.override else 0.0)

    def standing(self, now: float) -> Override | None:
        """Return the override, unless it has ended."""
        return self.override if self.override is not None and self.override.until > now else None


def fresh(now: float) -> SharedState:
    """Return the record of a fleet without a known state."""
    return SharedState(epoch=next_epoch(0, now))


def next_epoch(epoch: int, now: float) -> int:
    """Return an epoch that was never used, even if the old one was lost with the data."""
    return max(epoch + 1, int(now * 1000))
