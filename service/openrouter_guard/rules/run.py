"""A run of failures of a closed breaker: how many of them count, and from when on they are enough.

The script that counts in Redis does the same; see ``store/count.lua``.
"""

from __future__ import annotations

from dataclasses import replace

from .breaker import Closed, Policy, threshold

__all__ = ["CHECKER_PREFIX", "SHARES_KEPT", "are_enough", "longer", "without"]

CHECKER_PREFIX = "c"
"""The reporters' names that start so are health services, whose own checks count too."""
SHARES_KEPT = 32
"""Of so many reporters it is known how many failures of a run came from each. Where more failed in a row, it is no
single one that fails."""


def longer(breaker: Closed, reporter: str, *, refuses_credit: bool) -> Closed:
    """The breaker after one more failure."""
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
    )


def without(breaker: Closed) -> Closed:
    """The breaker after a success."""
    return replace(breaker, failures=0, run=frozenset(), refusals=0, shares={})


def are_enough(breaker: Closed, live_reporters: int, calls_per_minute: float, policy: Policy) -> bool:
    """Whether the failures reach the threshold, where no reporter counts for more than its share of it."""
    wanted = threshold(calls_per_minute, policy)
    # A health check that fails too agrees with the workers, and takes nothing of what they count for.
    workers = live_reporters - sum(name.startswith(CHECKER_PREFIX) for name in breaker.run)
    reporters = max(min(policy.reporters_wanted, workers), 1)
    return _counting(breaker, -(-wanted // reporters)) >= wanted


def _counting(breaker: Closed, most: int) -> int:
    """How many failures count, where no reporter counts for more than *most* of them.

    Of whom the others came, nobody knows: older writers do not say.
    """
    known = sum(breaker.shares.values())
    return max(breaker.failures - known, 0) + sum(min(share, most) for share in breaker.shares.values())
