"""The circuit breaker: its states, and what follows from what.

    closed ──enough failures in a row──▶ open ──its time has passed──▶ half-open
       ▲                                  ▲                               │
       └────────── a trial call succeeds ─┼───────────────────────────────┤
                                          └────── a trial call fails ─────┘

An open breaker becomes half-open by time alone: nobody has to be there to turn it. Nor has anybody to be there to
close it: where no trial call is made for a while, good health checks do, on probation. All times are Unix seconds of
the Redis server's clock, passed in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeAlias

from .parsing import CLOCK_S
from .question import NOTHING, Evidence, Question
from .signals import OpenRouterState
from .window import Limits, Window

__all__ = [
    "CLOCK_S",
    "Breaker",
    "Closed",
    "HalfOpen",
    "Open",
    "BreakerState",
    "Policy",
    "needs_person",
    "opened",
    "phase",
    "threshold",
    "try_early_s",
    "wait_s",
    "waits_for_trial",
    "with_clock",
    "with_permit",
    "without_permit",
]


TOLERATED_ERROR_RATE = 0.1
"""One call in ten may fail without anything being wrong with the upstream as a whole."""
LONGEST_S = 960.0
_FAILS_WITHIN_S = 5.0
_WAIT_SHARE = 1 / 8
"""Of the time that an outage has lasted: who waits no longer than that adds no more to it."""
_UNTIL_SOMEBODY_ACTS = frozenset({OpenRouterState.API_KEY_INVALID.value, OpenRouterState.CREDITS_EXHAUSTED.value})
_MINUTES_IN_30_DAYS = 30 * 24 * 60


class BreakerState(StrEnum):
    """The effective state, as stored, shown and measured."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings of the rules.

    Attributes:
        failure_threshold: Failures in a row that open a closed breaker, or more in a busy fleet.
        reporters_wanted: How many of the live reporters a run of failures must come from.
        network_reporters: The same for failures to get through at all, even where fewer live: one worker's network
            may be broken.
        first_wait_s: How long an open breaker waits before trial calls may go; half as much again at each re-opening,
            but no more than an eighth of how long the outage has lasted,
        longest_wait_s: up to here. Two calls then cost the fleet little, whatever its size.
        reset_timeout_s: No wait is longer, but where a person has to act.
        max_reset_timeout_s: The longest wait while the key or the account is refused: that one doubles, up to here.
        jitter: By how much of itself a wait may be longer, so that scopes that opened together do not try together.
        recheck_s: So often the service may check an open breaker, where that is more often than its slot allows.
        stable_s: Closed for this long, the next wait is the first one again.
        permits: Trial calls at a time for the whole fleet while half-open.
        permit_lease_s: A permit whose holder is silent for this long is free again.
        trial_call_s: A trial call that takes longer than this loses its permit: one that hangs holds it no longer.
        trial_wait_s: Half-open for this long without a trial call, good health checks may close it instead.
        good_checks: How many of them in a row it takes.
        ramp_s: So long after closing, every worker that waited may go at the latest; see :mod:`.ramp`.
        cooldown_s: The first wait of a model that fails as often in a row as opens the breaker, then doubled.
        max_cooldown_s: The longest of these waits.
        refusals_wanted: How many times the upstream must say that the account is out of credit.
        confirm_s: How long a health check may take to confirm what a call said of the account.
        failure_rate: The share of failures in the window that opens a closed breaker too; 0: none does.
        slow_rate: The share of slow calls that does; 0: none does.
        slow_s: A call is slow that takes so long.
        window_s: How far back the window reaches.
        window_calls: With fewer calls in it, no share means anything.
    """

    failure_threshold: int = 5
    reporters_wanted: int = 3
    network_reporters: int = 2
    first_wait_s: float = 10.0
    longest_wait_s: float = 30.0
    reset_timeout_s: float = 120.0
    max_reset_timeout_s: float = LONGEST_S
    jitter: float = 0.1
    recheck_s: float = 60.0
    stable_s: float = 600.0
    permits: int = 2
    permit_lease_s: float = 15.0
    trial_call_s: float = 600.0
    trial_wait_s: float = 60.0
    good_checks: int = 2
    ramp_s: float = 30.0
    cooldown_s: float = 5.0
    max_cooldown_s: float = 60.0
    refusals_wanted: int = 2
    confirm_s: float = 10.0
    failure_rate: float = 0.0
    slow_rate: float = 0.0
    slow_s: float = 60.0
    window_s: float = 60.0
    window_calls: int = 100

    @property
    def watches_rates(self) -> bool:
        """Whether the calls of the last time are to be counted besides the failures in a row."""
        return self.failure_rate > 0 or self.slow_rate > 0

    @property
    def alone(self) -> Policy:
        """Of a worker that cannot ask the others: what it sees counts, and it tries one call at a time."""
        return replace(self, permits=1, reporters_wanted=1, network_reporters=1)

    def limits(self, live_reporters: int) -> Limits:
        reporters = min(self.reporters_wanted, live_reporters)
        return Limits(self.window_s, self.window_calls, self.failure_rate, self.slow_rate, reporters)


@dataclass(frozen=True, slots=True)
class Closed:
    """Calls flow.

    Attributes:
        failures: Failures since the last success.
        run: The reporters that this run of failures came from.
        trips: How often the breaker has opened without a stable time between.
        since_s: When it closed; 0 if it never was open.
        on_probation: Health checks closed it and no call has succeeded since: the first failure opens it again.
        refusals: How many of the failures said that the account is out of credit.
        window: The calls of the last time, where somebody wants to know.
        shares: How many of the failures came from which reporter; of those beyond, nobody knows from whom. Two states
            that differ in nothing else are the same.
        evidence: What is known of the calls that failed.
        want: With fewer failures the fleet is not asked again.
        question: What the fleet is asked at present.
        call_s: How long the trial call took that closed it; 0 if nobody knows.
        ramp_from_s: When the fleet began to come back, where that was later than the closing; else 0.
        held_until_s: The end of a rate limit, where no call has succeeded since; else 0.
    """

    failures: int = 0
    run: frozenset[str] = frozenset()
    trips: int = 0
    since_s: float = 0.0
    on_probation: bool = False
    refusals: int = 0
    window: Window = ()
    shares: Mapping[str, int] = field(default_factory=dict, compare=False)
    evidence: Evidence = field(default=NOTHING, compare=False)
    want: int = 0
    question: Question | None = None
    call_s: float = 0.0
    ramp_from_s: float = 0.0
    held_until_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Open:
    """Calls are refused until ``until_s``.

    Attributes:
        reason: What opened it, an error type.
        opened_at_s: When the outage began: the first opening, not the latest.
        until_s: When trial calls may go.
        trips: 1 for the first opening, one more for each re-opening.
        failures: Failures in a row that led here.
    """

    reason: str
    opened_at_s: float
    until_s: float
    trips: int = 1
    failures: int = 0


@dataclass(frozen=True, slots=True)
class HalfOpen:
    """A few trial calls may go; their outcome decides.

    Attributes:
        permits: Owner of each trial call that is out, and when its lease ends.
        tried_at_s: When the last one went out, or was still under way.
        until_s: When its wait would have been over, where a health check has ended it before; else 0.
    """

    reason: str
    opened_at_s: float
    trips: int = 1
    failures: int = 0
    permits: Mapping[str, float] = field(default_factory=dict)
    tried_at_s: float = 0.0
    until_s: float = 0.0


Breaker: TypeAlias = Closed | Open | HalfOpen


def phase(breaker: Breaker, now_s: float) -> BreakerState:
    """The effective state: what is stored, and the time."""
    match breaker:
        case Closed():
            return BreakerState.CLOSED
        case Open() if now_s < breaker.until_s:
            return BreakerState.OPEN
        case _:
            return BreakerState.HALF_OPEN


def threshold(calls_per_minute: float, policy: Policy) -> int:
    """Failures in a row that open a closed breaker.

    Five in a row, each as likely as the tolerated error rate, come by chance sooner or later; in a large fleet within
    the hour. So many are asked for that at the present rate of calls it happens less than once in 30 days.
    """
    calls = max(calls_per_minute * _MINUTES_IN_30_DAYS, 1.0)
    # Rounded, so that exactly ten thousand calls are four powers of ten and not a little more.
    by_chance = math.ceil(round(math.log(calls) / math.log(1 / TOLERATED_ERROR_RATE), 9))
    return max(policy.failure_threshold, by_chance)


def opened(breaker: Breaker, *, reason: str, now_s: float, policy: Policy, share: float = 0.0) -> Open:
    """The breaker after it opened, or opened again; ``share`` (0 to 1) says how much of the jitter it gets.

    A trial call that went early, for a health check was good, and that failed costs no time: the wait goes on as if
    nobody had tried.
    """
    match breaker:
        case Closed():
            is_new = now_s - breaker.since_s >= policy.stable_s or needs_person(reason)
            return _opened(breaker, 1 if is_new else breaker.trips + 1, reason, now_s, now_s, policy, share)
        case _ if needs_person(reason) is not needs_person(breaker.reason):
            after = _opened(breaker, 1, reason, breaker.opened_at_s, now_s, policy, share)
        case _:
            after = _opened(breaker, breaker.trips + 1, reason, breaker.opened_at_s, now_s, policy, share)
    if not isinstance(breaker, HalfOpen) or not breaker.until_s:
        return after
    return replace(after, until_s=min(breaker.until_s, after.until_s), trips=min(after.trips, breaker.trips))


def _opened(
    breaker: Breaker, trips: int, reason: str, since_s: float, now_s: float, policy: Policy, share: float
) -> Open:
    # An outage that begins again soon after the last one has a wait for each of them.
    lasted_s = math.inf if isinstance(breaker, Closed) else now_s - since_s
    until_s = _end_s(trips, reason, now_s=now_s, policy=policy, share=share, lasted_s=lasted_s)
    return Open(reason, since_s, until_s, trips, breaker.failures)


def _end_s(
    trips: int, reason: str, *, now_s: float, policy: Policy, share: float, lasted_s: float = math.inf
) -> float:
    # Whole microseconds: what is written as a time of day is read as the same.
    return round(now_s + wait_s(trips, policy, reason, lasted_s) * (1 + policy.jitter * share), 6)


def with_clock(breaker: Breaker, *, now_s: float, policy: Policy) -> Breaker:
    """The breaker by the clock as it is; an outage that has yet to begin says that it was set back.

    Then the outage begins now, with its last wait once more, for nobody knows how much of that is over, and permits
    are given anew. An open breaker waits once more, too, where its end lies further ahead than any wait.
    """
    # Others may be set to wait longer than we are, but not for longer than anybody is unless told to.
    longest_s = max(policy.max_reset_timeout_s, LONGEST_S) * (1 + policy.jitter) + CLOCK_S
    longest_lease_s = max(policy.permit_lease_s, LONGEST_S) + CLOCK_S
    match breaker:
        case Open() if breaker.opened_at_s > now_s + CLOCK_S:
            until_s = _end_s(breaker.trips, breaker.reason, now_s=now_s, policy=policy, share=0.0)
            return replace(breaker, opened_at_s=now_s, until_s=min(breaker.until_s, until_s))
        case Open() if breaker.until_s > now_s + longest_s:
            until_s = _end_s(breaker.trips, breaker.reason, now_s=now_s, policy=policy, share=0.0)
            return replace(breaker, until_s=until_s)
        case HalfOpen() if breaker.opened_at_s > now_s + CLOCK_S:
            return replace(breaker, opened_at_s=now_s, permits={}, tried_at_s=now_s, until_s=0.0)
        case HalfOpen(permits=permits) if any(end_s > now_s + longest_lease_s for end_s in permits.values()):
            kept = {owner: end_s for owner, end_s in permits.items() if end_s <= now_s + longest_lease_s}
            return replace(breaker, permits=kept)
        case _:
            return breaker


def wait_s(trips: int, policy: Policy, reason: str = "", lasted_s: float = math.inf) -> float:
    """How long the breaker stays open at its ``trips``-th opening in a row, in seconds.

    Args:
        trips: 1 for the first opening.
        policy: The settings of the rules.
        reason: What opened it, an error type.
        lasted_s: For how long the outage has lasted; infinite where that does not matter.
    """
    grown = min(max(trips, 1) - 1, 30)  # beyond, the power is large and the cap has long decided
    first_s = min(policy.first_wait_s, policy.reset_timeout_s)
    if needs_person(reason):
        return float(min(first_s * 2**grown, policy.max_reset_timeout_s))
    grown_s = min(first_s * 1.5**grown, max(first_s, lasted_s * _WAIT_SHARE))
    return float(min(grown_s, max(policy.longest_wait_s, policy.first_wait_s), policy.reset_timeout_s))


def try_early_s(policy: Policy) -> float:
    """So much of a wait must be left for a health check to end it: a trial call that fails should end within it."""
    return min(_FAILS_WITHIN_S, policy.first_wait_s / 2, policy.reset_timeout_s / 2)


def needs_person(reason: str) -> bool:
    """Whether what opened it lasts until somebody acts: it takes a new key, or money."""
    return reason in _UNTIL_SOMEBODY_ACTS


def with_permit(breaker: Breaker, owner: str, *, now_s: float, policy: Policy) -> HalfOpen | None:
    """The breaker once *owner* holds a permit (or has renewed it), None if it cannot have one."""
    if phase(breaker, now_s) is not BreakerState.HALF_OPEN or isinstance(breaker, Closed):
        return None
    live = {name: until for name, until in _permits(breaker).items() if until > now_s}
    if owner not in live and len(live) >= policy.permits:
        return None
    permits = live | {owner: now_s + policy.permit_lease_s}
    if isinstance(breaker, HalfOpen):
        # A call that goes once the wait is over is a trial like any other.
        until_s = breaker.until_s if owner in live or now_s < breaker.until_s else 0.0
        return replace(breaker, permits=permits, tried_at_s=now_s, until_s=until_s)
    return HalfOpen(breaker.reason, breaker.opened_at_s, breaker.trips, breaker.failures, permits, tried_at_s=now_s)


def without_permit(breaker: Breaker, owner: str) -> Breaker:
    """The breaker once *owner* gave its permit back without a verdict."""
    if not isinstance(breaker, HalfOpen) or owner not in breaker.permits:
        return breaker
    return replace(breaker, permits={name: at for name, at in breaker.permits.items() if name != owner})


def waits_for_trial(breaker: Breaker, *, now_s: float, policy: Policy) -> bool:
    """Whether it has been half-open for long without a trial call: perhaps nobody is there to make one."""
    if phase(breaker, now_s) is not BreakerState.HALF_OPEN or isinstance(breaker, Closed):
        return False
    since_s = breaker.until_s if isinstance(breaker, Open) else breaker.tried_at_s
    return now_s - since_s >= policy.trial_wait_s and not any(end > now_s for end in _permits(breaker).values())


def _permits(breaker: Open | HalfOpen) -> Mapping[str, float]:
    return breaker.permits if isinstance(breaker, HalfOpen) else {}
