"""Waits that grow with each failure."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Backoff"]

_MOST_STEPS = 30
"""Beyond this the power is large, and the longest wait has long decided."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits that double with each failure in a row.

    Attributes:
        first_s: The wait after the first failure, in seconds.
        longest_s: The longest wait, in seconds.
    """

    first_s: float
    longest_s: float

    def wait_s(self, failures: int) -> float:
        """Return the wait after so many failures in a row, at least one, in seconds."""
        return float(min(self.first_s * 2 ** min(max(failures - 1, 0), _MOST_STEPS), self.longest_s))
