"""Whether the watches still show what happens: what we write ourselves has to come back through them.

A watch can hang for ever while its connection looks alive. Silence is no sign of that, since nothing may be going on;
a write of our own that does not show up is one.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = ["LAG_S", "WatchLag"]

LAG_S = 180.0
"""A silent watch is begun anew after a good minute, so what takes longer than this does not heal by itself."""
Stream: TypeAlias = str
"""The plural of what is watched, and the namespace."""


@dataclass(slots=True)
class _Stream:
    """One watch.

    Attributes:
        seen: The newest version that it has shown; within a watch they only grow.
        event_s: When it showed something last, monotonic clock.
        missing: Versions that we wrote and that it has not shown yet, each with its time; the lowest one first.
    """

    seen: int = 0
    event_s: float = 0.0
    missing: list[tuple[int, float]] = field(default_factory=list)


class WatchLag:
    """All watches."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._watch_lag: dict[Stream, _Stream] = {}

    def wrote(self, plural: str, namespace: str, version: str) -> None:
        """The API server has given what we wrote this version."""
        stream, number = self._stream(plural, namespace), _number(version)
        if number > stream.seen:
            heapq.heappush(stream.missing, (number, self._clock()))

    def saw(self, plural: str, namespace: str, version: str) -> None:
        """The watch has shown this version of something."""
        stream = self._stream(plural, namespace)
        stream.seen, stream.event_s = max(stream.seen, _number(version)), self._clock()
        while stream.missing and stream.missing[0][0] <= stream.seen:
            heapq.heappop(stream.missing)

    def forget(self, plural: str) -> None:
        """These are watched no more."""
        self._watch_lag = {
            name: stream for name, stream in self._watch_lag.items() if name.partition("/")[0] != plural
        }

    def ages_s(self) -> Mapping[str, float]:
        """By plural: seconds since any watch of these showed something."""
        now_s, latest_s = self._clock(), dict[str, float]()
        for name, stream in self._watch_lag.items():
            plural = name.partition("/")[0]
            latest_s[plural] = max(latest_s.get(plural, 0.0), stream.event_s)
        return {plural: now_s - at_s for plural, at_s in latest_s.items()}

    def lag_s(self) -> float:
        """For how many seconds something that we wrote has not been shown; 0 if all has."""
        return max((self._clock() - at_s for at_s in self._missing_since_s().values()), default=0.0)

    def stalled(self) -> list[str]:
        """The watches that do not heal by themselves any more."""
        late_s = self._clock() - LAG_S
        return [f"the watch of {name}" for name, at_s in self._missing_since_s().items() if at_s < late_s]

    def _missing_since_s(self) -> Mapping[Stream, float]:
        return {name: min(s.missing, key=lambda one: one[1])[1] for name, s in self._watch_lag.items() if s.missing}

    def _stream(self, plural: str, namespace: str) -> _Stream:
        return self._watch_lag.setdefault(f"{plural}/{namespace}", _Stream())


def _number(version: str) -> int:
    """Resource versions are opaque by contract, and integers that only grow in every API server there is."""
    return int(version) if version.isdecimal() else 0
