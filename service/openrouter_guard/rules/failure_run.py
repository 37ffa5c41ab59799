"""A run of failures of a closed breaker: how many of them count, and when they are enough.

The script that counts in Redis does the same; see ``store/count.lua``.
"""

from __future__ import annotations

from dataclasses import replace

from . import breaker as breakers
from .breaker import Closed, Policy
from .question import NOTHING, Acquittal

__all__ = [
    "CHECKER_PREFIX",
    "SHARES_KEPT",
    "SILENCE_S",
    "after_success",
    "are_enough",
    "are_of_too_few",
    "counting",
    "longer",
    "without",
]

CHECKER_PREFIX = "c"
"""Prefix of health services' reporter names; their own checks count too."""
SHARES_KEPT = 32
"""Number of reporters whose failures in a run are recorded.

If more failed in a row, it is not a single one that fails.
"""
SILENCE_S = 5.0
"""After this time without a success, failures of too few reporters are enough, unless another worker is at work."""


def longer(breaker: Closed, reporter: str, *, refuses_credit: bool, began_at: float, ended_at: float) -> Closed:
    """Return the breaker after one more failure; ``began_at`` is 0 if unknown."""
    breaker = breaker if breaker.failures else without(breaker)
    shares = breaker.shares
    if reporter in shares or len(shares) < SHARES_KEPT:
        shares = {**shares, reporter: shares.get(reporter, 0) + 1}
    return replace(
        breaker,
        failures=breaker.failures + 1,
        run=breaker.run | {reporter},
        refusals=breaker.refusals + refuses_credit,
        shares=shares,
        evidence=breaker.evidence.after(began_at, ended_at),
    )


def without(breaker: Closed) -> Closed:
    """Return the breaker after a success."""
    return replace(
        breaker,
        failures=0,
        run=frozenset(),
        refusals=0,
        shares={},
        evidence=NOTHING,
        want=0,
        question=None,
        earlier=0,
    )


def after_success(breaker: Closed, last: Acquittal, *, began_at: float, ended_at: float) -> Closed:
    """Return the breaker after a success, which ends the run of failures but in two cases.

    While the fleet is asked, the answers include it. Soon after the first failure, and unless the fleet has been
    acquitted a moment ago, one that began before the failed calls says nothing of them. A call with an unknown start
    ends the run in any case.
    """
    if breaker.question is not None and breaker.question.holds(ended_at) and began_at:
        return breaker
    if breaker.evidence.outlives(began_at, ended_at) and not last.is_recent(ended_at):
        return replace(breaker, earlier=breaker.earlier + 1)
    return without(breaker)


def counting(breaker: Closed, live_reporters: int, calls_per_minute: float, policy: Policy) -> int:
    """Return how many of the failures count, if no reporter counts for more than its share of those that are wanted.

    The threshold wants some, and a question that left it open wants more. The source of the others is unknown: older
    writers do not record it.
    """
    # A failed health check agrees with the workers, and takes nothing from their count.
    workers = live_reporters - sum(name.startswith(CHECKER_PREFIX) for name in breaker.run)
    reporters = max(min(policy.reporters_wanted, workers), 1)
    # Else a few reporters would reach the threshold only, and never the number to ask again at.
    most = -(-max(breakers.threshold(calls_per_minute, policy), breaker.want) // reporters)
    known = sum(breaker.shares.values())
    return max(breaker.failures - known, 0) + sum(min(share, most) for share in breaker.shares.values())


def are_enough(breaker: Closed, live_reporters: int, calls_per_minute: float, policy: Policy) -> bool:
    """Return whether the failures that count reach the threshold."""
    wanted = breakers.threshold(calls_per_minute, policy)
    return counting(breaker, live_reporters, calls_per_minute, policy) >= wanted


def are_of_too_few(breaker: Closed, live_reporters: int, calls_per_minute: float, policy: Policy) -> bool:
    """Return whether the failures are enough in number, but come from too few of the live reporters."""
    if breaker.failures < breakers.threshold(calls_per_minute, policy):
        return False
    is_by_few = len(breaker.run) < min(policy.reporters_wanted, live_reporters)
    return is_by_few or not are_enough(breaker, live_reporters, calls_per_minute, policy)
