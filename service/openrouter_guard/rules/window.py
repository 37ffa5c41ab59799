"""The calls of the last minute or so, in steps of ten seconds: how many failed, and how many were slow.

Failures in a row find an outage within seconds. Where half of all calls fail, runs are short, and where all calls
crawl, none fails: a rate over a window finds those. The store counts; all times are Unix seconds of the Redis
server's clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from . import parsing

__all__ = ["FAILURE_RATE", "SLOW_CALL_RATE", "Limits", "Tally", "Window", "excess", "parse", "text_of"]

FAILURE_RATE = "failure_rate"
SLOW_CALL_RATE = "slow_call_rate"
REPORTERS_MOST = 3
TEXT_MOST = 16_384
_TALLY = re.compile(r"([0-9]{1,15}):([0-9]{1,15}):([0-9]{1,15}):([0-9]{1,15}):(\S*)")
"""One step, as the scripts in Redis read it too."""


@dataclass(frozen=True, slots=True)
class Tally:
    """The calls that ended in one step.

    Attributes:
        at_s: When the step began.
        failures: Calls that failed.
        slow: Calls that took too long, failed or not.
        reporters: Up to three workers that had one of either.
    """

    at_s: int
    calls: int
    failures: int = 0
    slow: int = 0
    reporters: tuple[str, ...] = ()


Window: TypeAlias = tuple[Tally, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """When a window is one of an upstream that is not well.

    Attributes:
        window_s: How far it reaches back.
        calls: With fewer, no rate means anything.
        failure_rate: From which share of failures on; 0: never.
        slow_rate: From which share of slow calls on; 0: never.
        reporters: How many workers must have met them.
    """

    window_s: float
    calls: int
    failure_rate: float
    slow_rate: float
    reporters: int


def excess(window: Window, limits: Limits, now_s: float) -> tuple[str, str] | None:
    """Which rate is too high, and in words; None if none is."""
    lately = [tally for tally in window if tally.at_s > now_s - limits.window_s]
    calls = sum(tally.calls for tally in lately)
    reporters = {name for tally in lately for name in tally.reporters}
    if calls < limits.calls or len(reporters) < limits.reporters:
        return None
    failures, slow = sum(tally.failures for tally in lately), sum(tally.slow for tally in lately)
    within = f"of {calls} calls in the last {limits.window_s:g} s"
    if limits.failure_rate and failures >= limits.failure_rate * calls:
        return FAILURE_RATE, f"{failures} {within} failed"
    if limits.slow_rate and slow >= limits.slow_rate * calls:
        return SLOW_CALL_RATE, f"{slow} {within} were slow"
    return None


def parse(text: str | None) -> Window:
    """The window as the store wrote it; a step that cannot be read is left out."""
    return tuple(tally for tally in map(_tally, parsing.text_of(text, TEXT_MOST).split()) if tally is not None)


def text_of(window: Iterable[Tally]) -> str:
    """The reverse of :func:`parse`."""
    return " ".join(
        f"{tally.at_s}:{tally.calls}:{tally.failures}:{tally.slow}:{','.join(tally.reporters)}" for tally in window
    )


def _tally(text: str) -> Tally | None:
    match = _TALLY.fullmatch(text)
    if match is None:
        return None
    at_s, calls, failures, slow = map(int, match.groups()[:4])
    names = match[5].split(",")[:REPORTERS_MOST] if match[5] else ()
    return Tally(at_s, calls, min(failures, calls), min(slow, calls), tuple(names))
