"""Checks the watches: every write of ours must come back through them.

A watch can hang for ever while its connection looks alive. Silence is no sign of that, since there may be no events.
A missing write of our own is one.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = ["LAG_S", "WatchLag"]

LAG_S = 180.0
"""A silent watch is restarted after a good minute, so a longer delay does not heal by itself."""
Stream: TypeAlias = str
"""The watched plural, and the namespace."""


@dataclass(slots=True)
class _Stream:
    """One watch.

    Attributes:
        seen: The newest version that it has shown; versions only grow within a watch.
        event_at: Time of its last event, monotonic clock.
        missing: Our written versions that it has not shown yet, each with its time; the lowest one first.
    """

    seen: int = 0
    event_at: float = 0.0
    missing: list[tuple[int, float]] = field(default_factory=list)


class WatchLag:
    """All watches."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._watch_lag: dict[Stream, _Stream] = {}

    def wrote(self, plural: str, namespace: str, version: str) -> None:
        """Note the version of a write of ours."""
        stream, number = self._stream(plural, namespace), _number(version)
        if number > stream.seen:
            heapq.heappush(stream.missing, (number, self._clock()))

    def saw(self, plural: str, namespace: str, version: str) -> None:
        """Note a version that the watch has shown."""
        stream = self._stream(plural, namespace)
        stream.seen, stream.event_at = max(stream.seen, _number(version)), self._clock()
        while stream.missing and stream.missing[0][0] <= stream.seen:
            heapq.heappop(stream.missing)

    def forget(self, plural: str) -> None:
        """Note that these are not watched any more."""
        self._watch_lag = {
            name: stream for name, stream in self._watch_lag.items() if name.partition("/")[0] != plural
        }

    def ages_s(self) -> Mapping[str, float]:
        """Return, by plural, the seconds since the last event of any watch."""
        now, latest = self._clock(), dict[str, float]()
        for name, stream in self._watch_lag.items():
            plural = name.partition("/")[0]
            latest[plural] = max(latest.get(plural, 0.0), stream.event_at)
        return {plural: now - at for plural, at in latest.items()}

    def lag_s(self) -> float:
        """Return for how many seconds a write of ours has been missing; 0 without one."""
        return max((self._clock() - at for at in self._missing_since().values()), default=0.0)

    def stalled(self) -> list[str]:
        """Return the watches that do not heal by themselves any more."""
        late = self._clock() - LAG_S
        return [f"the watch of {name}" for name, at in self._missing_since().items() if at < late]

    def _missing_since(self) -> Mapping[Stream, float]:
        return {name: min(s.missing, key=lambda one: one[1])[1] for name, s in self._watch_lag.items() if s.missing}

    def _stream(self, plural: str, namespace: str) -> _Stream:
        return self._watch_lag.setdefault(f"{plural}/{namespace}", _Stream())


def _number(version: str) -> int:
    """Resource versions are opaque by contract, but are growing integers in every existing API server."""
    return int(version) if version.isdecimal() else 0
