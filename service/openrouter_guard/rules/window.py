"""Recent calls in steps of ten seconds: how many failed, and how many were slow.

Failures in a row show an outage within seconds. If half of all calls fail, runs are short, and if all calls are slow,
none fails: rates over a window show those. The store counts; all times are Unix seconds of the Redis server's clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from . import parsing

__all__ = ["FAILURE_RATE", "SLOW_CALL_RATE", "Limits", "StepCounts", "Window", "excess", "parse", "text_of"]

FAILURE_RATE = "failure_rate"
SLOW_CALL_RATE = "slow_call_rate"
REPORTERS_MOST = 3
TEXT_MOST = 16_384
_TALLY = re.compile(r"([0-9]{1,15}):([0-9]{1,15}):([0-9]{1,15}):([0-9]{1,15}):(\S*)")
"""Length of one step, also in the scripts in Redis."""


@dataclass(frozen=True, slots=True)
class StepCounts:
    """The calls that ended in one step.

    Attributes:
        at: When the step began.
        failures: Calls that failed.
        slow: Calls that took too long, failed or not.
        reporters: Up to three workers that had such a call.
    """

    at: int
    calls: int
    failures: int = 0
    slow: int = 0
    reporters: tuple[str, ...] = ()


Window: TypeAlias = tuple[StepCounts, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a healthy window.

    Attributes:
        window_s: Its length.
        calls: With fewer calls, the rates are ignored.
        failure_rate: Lowest unhealthy share of failures; 0: off.
        slow_rate: Lowest unhealthy share of slow calls; 0: off.
        reporters: Number of workers that must have had such calls.
    """

    window_s: float
    calls: int
    failure_rate: float
    slow_rate: float
    reporters: int


def excess(window: Window, limits: Limits, now: float) -> tuple[str, str] | None:
    """Return the rate that is too high, with a message; None if none is."""
    lately = [counts for counts in window if counts.at > now - limits.window_s]
    calls = sum(counts.calls for counts in lately)
    reporters = {name for counts in lately for name in counts.reporters}
    if calls < limits.calls or len(reporters) < limits.reporters:
        return None
    failures, slow = sum(counts.failures for counts in lately), sum(counts.slow for counts in lately)
    within = f"of {calls} calls in the last {limits.window_s:g} s"
    if limits.failure_rate and failures >= limits.failure_rate * calls:
        return FAILURE_RATE, f"{failures} {within} failed"
    if limits.slow_rate and slow >= limits.slow_rate * calls:
        return SLOW_CALL_RATE, f"{slow} {within} were slow"
    return None


def parse(text: str | None) -> Window:
    """Parse the window that the store wrote; unreadable steps are left out."""
    return tuple(counts for counts in map(_counts, parsing.text_of(text, TEXT_MOST).split()) if counts is not None)


def text_of(window: Iterable[StepCounts]) -> str:
    """The reverse of :func:`parse`."""
    return " ".join(
        f"{counts.at}:{counts.calls}:{counts.failures}:{counts.slow}:{','.join(counts.reporters)}"
        for counts in window
    )


def _counts(text: str) -> StepCounts | None:
    match = _TALLY.fullmatch(text)
    if match is None:
        return None
    at, calls, failures, slow = map(int, match.groups()[:4])
    names = match[5].split(",")[:REPORTERS_MOST] if match[5] else ()
    return StepCounts(at, calls, min(failures, calls), min(slow, calls), tuple(names))
