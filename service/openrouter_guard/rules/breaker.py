"""The circuit breaker: its states and transitions.

    closed ──enough failures in a row──▶ open ──its time has passed──▶ half-open
       ▲                                  ▲                               │
       └────────── a trial call succeeds ─┼───────────────────────────────┤
                                          └────── a trial call fails ─────┘

An open breaker becomes half-open by time alone, without any process. It can also close without a trial call: if none
is made for a while, good health checks close it, on probation. All times are Unix seconds of the Redis server's
clock, passed in.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar, TypeAlias

from .backoff import Backoff
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
    "permits_by",
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
"""One call in ten may fail although the upstream as a whole is well."""
LONGEST_S = 960.0
_FAILS_WITHIN_S = 5.0
_WAIT_SHARE = 1 / 10
"""Share of the outage so far: a wait of at most this share hardly extends the outage."""
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
        reporters_wanted: Number of live reporters that a run of failures must come from.
        network_reporters: The same for network errors, even if fewer reporters live: one worker's own network may be
            broken.
        first_wait_s: How long an open breaker waits before trial calls may go; half as long again at each re-opening,
            but at most a tenth of the outage so far,
        longest_wait_s: and at most this. A call then costs the fleet little, whatever its size.
        reset_timeout_s: No wait is longer, unless a person has to act.
        max_reset_timeout_s: The longest wait while the key or the account is refused: that wait doubles up to this.
        jitter: Random addition to a wait, as a share of it, so that scopes that opened together do not try together.
        recheck_s: How often the service may check an open breaker, if that is more often than its slot allows.
        stable_s: After this time closed, the next wait is the first one again.
        permits: Trial calls at a time for the whole fleet while half-open, at most:
        next_trial_s: one at first, and one more after each such time without a verdict; 0: all at once.
        permit_lease_s: A permit that is not renewed for this long is free again.
        trial_call_s: A trial call that takes longer than this loses its permit, so a hanging call does not hold it.
        trial_wait_s: After this time half-open without a trial call, good health checks may close it instead.
        good_checks: Number of good checks in a row that this takes.
        ramp_s: After this time, all waiting workers may call; see :mod:`.ramp`.
        cooldown_s: The first cooldown of a model, after as many failures in a row as open the breaker; then doubled.
        max_cooldown_s: The longest cooldown.
        refusals_wanted: How many times the upstream must report an empty account.
        confirm_s: How long a health check may take to confirm a call's report about the account.
        failure_rate: The share of failures in the window that also opens a closed breaker; 0: off.
        slow_rate: The share of slow calls that also does; 0: off.
        slow_s: A call of this duration or more is slow.
        window_s: Length of the window.
        window_calls: With fewer calls in the window, the shares are ignored.
    """

    failure_threshold: int = 5
    reporters_wanted: int = 3
    network_reporters: int = 2
    first_wait_s: float = 6.0
    longest_wait_s: float = 15.0
    reset_timeout_s: float = 120.0
    max_reset_timeout_s: float = LONGEST_S
    jitter: float = 0.1
    recheck_s: float = 60.0
    stable_s: float = 600.0
    permits: int = 2
    next_trial_s: float = 10.0
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
        """Return whether recent calls are counted besides the failures in a row."""
        return self.failure_rate > 0 or self.slow_rate > 0

    @property
    def alone(self) -> Policy:
        """The policy of a worker that cannot ask the others.

        Its own results decide, and it tries one call at a time.
        """
        return replace(self, permits=1, reporters_wanted=1, network_reporters=1)

    @property
    def fingerprint(self) -> str:
        """The same for the same settings: eight digits, so that processes with others can be told apart."""
        return hashlib.blake2b(repr(self).encode(), digest_size=4).hexdigest()

    def limits(self, live_reporters: int) -> Limits:
        reporters = min(self.reporters_wanted, live_reporters)
        return Limits(self.window_s, self.window_calls, self.failure_rate, self.slow_rate, reporters)


@dataclass(frozen=True, slots=True)
class Closed:
    """Calls may go.

    Attributes:
        failures: Failures since the last success.
        run: The reporters of this run of failures.
        trips: Number of openings without a stable time in between.
        since: When it closed; 0 if it was never open.
        on_probation: Health checks closed it and no call has succeeded since: the first failure opens it again.
        refusals: Number of failures that reported an empty account.
        window: Recent calls, if the optional rates are on.
        shares: Number of failures per reporter, as far as recorded. Two states that differ only here are the same.
        evidence: Evidence of the failed calls.
        want: Number of failures at which the fleet is asked again.
        question: The open question to the fleet.
        earlier: Number of successes that began before the failed calls, and did not end the run.
        call_s: Duration of the trial call that closed it; 0 if unknown.
        ramp_from: When the fleet began to come back, if later than the closing; else 0.
        held_until: The end of a rate limit, if no call has succeeded since; else 0.
    """

    failures: int = 0
    run: frozenset[str] = frozenset()
    trips: int = 0
    since: float = 0.0
    on_probation: bool = False
    refusals: int = 0
    window: Window = ()
    shares: Mapping[str, int] = field(default_factory=dict, compare=False)
    evidence: Evidence = field(default=NOTHING, compare=False)
    want: int = 0
    question: Question | None = None
    earlier: int = 0
    call_s: float = 0.0
    ramp_from: float = 0.0
    held_until: float = 0.0
    reason: ClassVar[str] = ""
    opened_at: ClassVar[float] = 0.0
    permits: ClassVar[Mapping[str, float]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Open:
    """Calls are refused until ``until``.

    Attributes:
        reason: The reason, an error type.
        opened_at: Start of the outage: the first opening, not the latest.
        until: When trial calls may go.
        trips: 1 for the first opening, one more for each re-opening.
        failures: Failures in a row that led here.
    """

    reason: str
    opened_at: float
    until: float
    trips: int = 1
    failures: int = 0
    permits: ClassVar[Mapping[str, float]] = MappingProxyType({})
    run: ClassVar[frozenset[str]] = frozenset()
    on_probation: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class HalfOpen:
    """A few trial calls may go; their outcome decides.

    Attributes:
        permits: Owner of each trial call in progress, and the end of its lease.
        tried_at: When the last one began, or was still in progress.
        until: End of the original wait, if a health check has ended it early; else 0.
    """

    reason: str
    opened_at: float
    trips: int = 1
    failures: int = 0
    permits: Mapping[str, float] = field(default_factory=dict)
    tried_at: float = 0.0
    until: float = 0.0
    run: ClassVar[frozenset[str]] = frozenset()
    on_probation: ClassVar[bool] = False


Breaker: TypeAlias = Closed | Open | HalfOpen


def phase(breaker: Breaker, now: float) -> BreakerState:
    """Return the effective state, from the stored one and the time."""
    match breaker:
        case Closed():
            return BreakerState.CLOSED
        case Open() if now < breaker.until:
            return BreakerState.OPEN
        case _:
            return BreakerState.HALF_OPEN


def threshold(calls_per_minute: float, policy: Policy) -> int:
    """Return the number of failures in a row that opens a closed breaker.

    Five failures in a row, each as likely as the tolerated error rate, occur by chance sooner or later; in a large
    fleet within the hour. The threshold is so high that this happens less than once in 30 days at the present rate of
    calls.
    """
    calls = max(calls_per_minute * _MINUTES_IN_30_DAYS, 1.0)
    # Rounded, so that exactly ten thousand calls are four powers of ten and not a little more.
    by_chance = math.ceil(round(math.log(calls) / math.log(1 / TOLERATED_ERROR_RATE), 9))
    return max(policy.failure_threshold, by_chance)


def opened(breaker: Breaker, *, reason: str, now: float, policy: Policy, share: float = 0.0) -> Open:
    """Return the breaker after opening or re-opening; ``share`` (0 to 1) is its share of the jitter.

    If a good health check let a trial call go early and it failed, no time is lost: the original wait goes on.
    """
    match breaker:
        case Closed():
            is_new = now - breaker.since >= policy.stable_s or needs_person(reason)
            return _opened(breaker, 1 if is_new else breaker.trips + 1, reason, now, now, policy, share)
        case _ if needs_person(reason) is not needs_person(breaker.reason):
            after = _opened(breaker, 1, reason, breaker.opened_at, now, policy, share)
        case _:
            after = _opened(breaker, breaker.trips + 1, reason, breaker.opened_at, now, policy, share)
    if not isinstance(breaker, HalfOpen) or not breaker.until:
        return after
    return replace(after, until=min(breaker.until, after.until), trips=min(after.trips, breaker.trips))


def _opened(
    breaker: Breaker, trips: int, reason: str, since: float, now: float, policy: Policy, share: float
) -> Open:
    # An outage soon after the last one adds a wait for each recent one.
    lasted_s = math.inf if isinstance(breaker, Closed) else now - since
    until = _end_of_wait(trips, reason, now=now, policy=policy, share=share, lasted_s=lasted_s)
    return Open(reason, since, until, trips, breaker.failures)


def _end_of_wait(
    trips: int, reason: str, *, now: float, policy: Policy, share: float, lasted_s: float = math.inf
) -> float:
    # Whole microseconds, so that the stored time reads back as the same value.
    return round(now + wait_s(trips, policy, reason, lasted_s) * (1 + policy.jitter * share), 6)


def with_clock(breaker: Breaker, *, now: float, policy: Policy) -> Breaker:
    """Return the breaker by the present clock. An outage that begins in the future means that the clock was set back.

    Then the outage begins now, with its last wait once more, because the elapsed part is unknown, and permits are
    given anew. An open breaker also waits once more if its end is further ahead than any wait.
    """
    # Other processes may have longer waits configured, but not longer than the default maximum.
    longest_s = max(policy.max_reset_timeout_s, LONGEST_S) * (1 + policy.jitter) + CLOCK_S
    longest_lease_s = max(policy.permit_lease_s, LONGEST_S) + CLOCK_S
    match breaker:
        case Open() if breaker.opened_at > now + CLOCK_S:
            until = _end_of_wait(breaker.trips, breaker.reason, now=now, policy=policy, share=0.0)
            return replace(breaker, opened_at=now, until=min(breaker.until, until))
        case Open() if breaker.until > now + longest_s:
            until = _end_of_wait(breaker.trips, breaker.reason, now=now, policy=policy, share=0.0)
            return replace(breaker, until=until)
        case HalfOpen() if breaker.opened_at > now + CLOCK_S:
            return replace(breaker, opened_at=now, permits={}, tried_at=now, until=0.0)
        case HalfOpen(permits=permits) if any(ends_at > now + longest_lease_s for ends_at in permits.values()):
            kept = {owner: ends_at for owner, ends_at in permits.items() if ends_at <= now + longest_lease_s}
            return replace(breaker, permits=kept)
        case _:
            return breaker


def wait_s(trips: int, policy: Policy, reason: str = "", lasted_s: float = math.inf) -> float:
    """Return how long the breaker stays open at its ``trips``-th opening in a row, in seconds.

    Args:
        trips: 1 for the first opening.
        policy: The settings of the rules.
        reason: The reason, an error type.
        lasted_s: Duration of the outage so far; infinite if irrelevant.
    """
    grown = min(max(trips, 1) - 1, 30)  # beyond this the power is large, and the cap has long decided
    first_s = min(policy.first_wait_s, policy.reset_timeout_s)
    if needs_person(reason):
        return Backoff(first_s, policy.max_reset_timeout_s).wait_s(trips)
    grown_s = min(first_s * 1.5**grown, max(first_s, lasted_s * _WAIT_SHARE))
    return float(min(grown_s, max(policy.longest_wait_s, policy.first_wait_s), policy.reset_timeout_s))


def try_early_s(policy: Policy) -> float:
    """The remaining wait must be at least this long for a health check to end it.

    A failing trial call should end within it.
    """
    return min(_FAILS_WITHIN_S, policy.first_wait_s / 2, policy.reset_timeout_s / 2)


def needs_person(reason: str) -> bool:
    """Return whether the cause lasts until a person acts: it needs a new key, or credit."""
    return reason in _UNTIL_SOMEBODY_ACTS


def permits_by(now: float, since: float, policy: Policy) -> int:
    """Return how many trial calls may be out at *now*, half-open *since* (0 if unknown).

    One tells as much as two, and costs half. But it may hang, or its worker may be gone.
    """
    passed_s = max(now - since, 0.0)
    return int(min(1 + passed_s // policy.next_trial_s, policy.permits)) if policy.next_trial_s else policy.permits


def with_permit(breaker: Breaker, owner: str, *, now: float, policy: Policy, since: float = 0.0) -> HalfOpen | None:
    """Return the breaker with a permit for *owner* (or a renewed one), or None if it cannot have one.

    See :func:`permits_by` for *since*.
    """
    if phase(breaker, now) is not BreakerState.HALF_OPEN or isinstance(breaker, Closed):
        return None
    live = {name: until for name, until in breaker.permits.items() if until > now}
    if owner not in live and len(live) >= permits_by(now, since, policy):
        return None
    permits = live | {owner: now + policy.permit_lease_s}
    if isinstance(breaker, HalfOpen):
        # A call after the end of the wait is a trial like any other.
        until = breaker.until if owner in live or now < breaker.until else 0.0
        return replace(breaker, permits=permits, tried_at=now, until=until)
    return HalfOpen(breaker.reason, breaker.opened_at, breaker.trips, breaker.failures, permits, tried_at=now)


def without_permit(breaker: Breaker, owner: str) -> Breaker:
    """Return the breaker after *owner* returned its permit without a verdict."""
    if not isinstance(breaker, HalfOpen) or owner not in breaker.permits:
        return breaker
    return replace(breaker, permits={name: at for name, at in breaker.permits.items() if name != owner})


def waits_for_trial(breaker: Breaker, *, now: float, policy: Policy) -> bool:
    """Return whether it has been half-open for long without a trial call: perhaps no worker is there to make one."""
    if phase(breaker, now) is not BreakerState.HALF_OPEN or isinstance(breaker, Closed):
        return False
    since = breaker.until if isinstance(breaker, Open) else breaker.tried_at
    return now - since >= policy.trial_wait_s and not any(end > now for end in breaker.permits.values())
