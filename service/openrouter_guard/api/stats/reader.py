"""Reads the fleet's counters periodically, so that neither a scrape nor an alert has to."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from openrouter_guard.rules import latency
from openrouter_guard.store import Store
from openrouter_guard.store.presence import NAMES_MOST
from openrouter_guard.worker.threads.loops import HEARTBEAT_S

from .figures import WINDOWS, Figures, Totals, availability, by_version, number, since, totals

__all__ = ["CounterReader"]

WINDOW_S = 300.0
"""Period of the reported error rate."""


class CounterReader:
    """The statistics of one scope at the last read.

    Attributes:
        figures: None until the first read.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._looks: deque[tuple[float, Totals]] = deque()
        self._workers: Mapping[tuple[str, str], int] = {}
        self._workers_at = 0.0
        self.figures: Figures | None = None

    async def read(self, now: float) -> Figures:
        """Read the counters; ``now`` is Redis' clock, Unix seconds.

        Raises:
            StoreError: If they cannot be read.
        """
        days = await self._store.metrics(2, now)
        in_state = await self._store.time_in_state(max(WINDOWS), now)
        await self._count_workers(now)
        seen = totals(days)
        self._looks.append((now, seen))
        while len(self._looks) > 1 and self._looks[1][0] <= now - WINDOW_S:
            self._looks.popleft()
        calls, failed = since(self._looks[0][1], seen)
        today = max(days, default="")
        refused = number(days.get(today, {}).get("not_permitted_calls", "0"))
        per_day = [in_state[date] for date in sorted(in_state, reverse=True)]
        self.figures = Figures(
            today=seen.get(today, (0, 0)),
            latency=latency.of_counters(days.get(today, {})),
            availability={window: availability(per_day[:window]) for window in WINDOWS},
            calls=calls,
            failed=failed,
            not_permitted=refused if isinstance(refused, int) else 0,
            workers=self._workers,
        )
        return self.figures

    async def _count_workers(self, now: float) -> None:
        # Looking more often tells nothing new.
        if abs(now - self._workers_at) >= HEARTBEAT_S:
            self._workers = by_version((await self._store.workers(NAMES_MOST)).values(), now)
            self._workers_at = now
