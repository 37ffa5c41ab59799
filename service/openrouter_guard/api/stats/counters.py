"""Counters of this process for the day's metrics, written in batches rather than once per request."""

from __future__ import annotations

from collections import Counter

from openrouter_guard.store import Store

__all__ = ["DayCounters"]


class DayCounters:
    """Counters that wait to be added to the fleet's."""

    def __init__(self) -> None:
        self._waiting: Counter[str] = Counter()

    def checked(self, *, is_good: bool) -> None:
        self._waiting["health_checks"] += 1
        if not is_good:
            self._waiting["health_checks_failed"] += 1

    def answered(self, *, is_hit: bool) -> None:
        self._waiting["cache_hits" if is_hit else "cache_misses"] += 1

    async def flush(self, store: Store, now: float) -> None:
        """Add the waiting counters to the day of ``now``.

        Raises:
            StoreError: If Redis does not accept them; they keep waiting.
        """
        if not self._waiting:
            return
        taken, self._waiting = self._waiting, Counter()
        try:
            await store.add_metrics(taken, at=now)
        except BaseException:
            self._waiting.update(taken)
            raise
