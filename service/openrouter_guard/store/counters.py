"""Counters of each UTC day, and the time that the breaker was in each state."""

from __future__ import annotations

from collections.abc import Mapping

from openrouter_guard.rules import time_in_state as times
from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.rules.codec import FIELDS, iso, parse
from openrouter_guard.rules.parsing import whole
from openrouter_guard.rules.text import json_text
from openrouter_guard.rules.time_in_state import KEPT_DAYS
from openrouter_guard.rules.units import DAY_S
from openrouter_guard.unreadable import reads_state

from .scope_store import ScopeStore
from .scripts import TIMES

__all__ = ["Counters", "kept_midnights", "time_counters"]

COUNTER_MOST = 10**15
_TIMES = {phase: f"breaker_{phase}_ms" for phase in BreakerState}
_NONE = (None,) * len(_TIMES)


class Counters(ScopeStore):
    """The counters of one scope."""

    @reads_state
    async def metrics(self, days: int, now: float) -> dict[str, dict[str, str]]:
        """Return the counters of the last *days* UTC days that have any, newest first, by date.

        The time in each state is not included: see :meth:`time_in_state`.
        """
        midnights = kept_midnights(days, now)
        keys = [self.keys.metrics(midnight) for midnight in midnights]
        found: list[dict[str, str]] = await self._connection.execute(*(("HGETALL", key) for key in keys))
        counted = [{name: n for name, n in day.items() if name not in _TIMES.values()} for day in found]
        return {_date(midnight): counters for midnight, counters in zip(midnights, counted, strict=True) if counters}

    @reads_state
    async def add_metrics(self, counters: Mapping[str, int], *, at: float) -> None:
        key = self.keys.metrics(at)
        await self._connection.execute(*(("HINCRBY", key, name, amount) for name, amount in counters.items()))
        # Only now: a foreign key must not expire either.
        await self._connection.execute(("EXPIRE", key, int(KEPT_DAYS * DAY_S)))

    @reads_state
    async def time_in_state(self, days: int, now: float) -> dict[str, dict[BreakerState, float]]:
        """Return the seconds that the breaker was in each state, up to this moment, newest day first, by date.

        A day adds up to its length if the state was kept all day: the time after all processes have left, and the
        state has expired, belongs to no state. Days without any are left out.
        """
        midnights = kept_midnights(days, now)
        seconds, micros, state, found = await self._run(
            TIMES,
            {self.keys.state: True},
            [json_text(FIELDS), json_text(list(_TIMES.values()))],
            [self.keys.metrics(midnight) for midnight in midnights],
        )
        now = int(seconds) + int(micros) / 1e6
        record = parse({name: value for name, value in zip(FIELDS, state, strict=True) if value is not None}, now)
        running = times.passed(record, now)
        milliseconds = {
            midnight: {
                p: _count(n) + running.get(midnight, {}).get(p, 0) for p, n in zip(_TIMES, day or _NONE, strict=True)
            }
            for midnight, day in zip(midnights, found, strict=True)
        }
        return {
            _date(midnight): {p: ms / 1000 for p, ms in day.items()}
            for midnight, day in milliseconds.items()
            if any(day.values())
        }


def time_counters(milliseconds: Mapping[BreakerState, int]) -> dict[str, int]:
    """Return the time in each state as counters of a day's metrics."""
    return {_TIMES[phase]: ms for phase, ms in milliseconds.items() if ms}


def kept_midnights(days: int, now: float) -> list[float]:
    """Return the starts of the last *days* UTC days that are kept, newest first."""
    today = now // DAY_S * DAY_S
    return [today - DAY_S * back for back in range(min(days, KEPT_DAYS + 1))]


def _date(at: float) -> str:
    return iso(at)[:10]


def _count(text: str | None) -> int:
    return whole(text, COUNTER_MOST)
