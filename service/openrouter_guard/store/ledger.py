"""History, counters and presence: read in limited amounts, however much there is.

A method with a ``limit`` returns at most this many, the newest.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from redis.exceptions import ResponseError

from openrouter_guard.errors import StoreError
from openrouter_guard.keys import Keys
from openrouter_guard.log_once import LogOnce
from openrouter_guard.rules import time_in_state as times
from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.rules.codec import FIELDS, iso, parse, unix_s
from openrouter_guard.rules.parsing import moment_s, object_of, row_of, text_of, whole
from openrouter_guard.rules.redaction import redact
from openrouter_guard.rules.text import json_text
from openrouter_guard.rules.time_in_state import KEPT_DAYS
from openrouter_guard.rules.units import DAY_S
from openrouter_guard.unreadable import reads_state

from .connection import Connection, Script
from .error_translation import explained, foreign_key
from .scripts import CLAIM, MEND, NOTE, TIMES

logger = logging.getLogger(__name__)

__all__ = ["Presence", "Ledger", "time_counters"]

WORKER_LIFE_S = 600.0
"""A worker without a heartbeat for this long is gone."""
WORKER_LIVE_S = 90.0
"""A worker sends a heartbeat every minute; this allows for a late one."""
NAMES_MOST = 10_000
"""Number of workers, or clusters, kept: those with the latest heartbeat."""
PAUSED_LIFE_S = DAY_S
"""How long an operator's list of paused workloads is valid unless it is repeated."""
ERROR_DAYS = 7
COUNTER_MOST = 10**15
ENTRY_MOST = 1000
ENTRY = ("from", "to", "reason", "by", "at")
HISTORY_READS = 10
"""How often to read on past foreign entries, before the result must do."""

Presence: TypeAlias = dict[str, Any]
"""A presence entry: a JSON object with ``last_seen``, ISO 8601."""
_TIMES = {phase: f"breaker_{phase}_ms" for phase in BreakerState}
_NONE = (None,) * len(_TIMES)
_OPTIONAL = {
    "XADD": ("Redis takes nothing into the history", "Redis takes the history again"),
    "PUBLISH": ("Redis passes nothing on, others must look for it", "Redis publishes changes again"),
}
"""Commands that the scripts run if allowed."""


class Ledger:
    """Counters, transitions, errors and presence of one scope.

    Every method raises: StoreUnavailable: If Redis is away or slow. StoreRefused: If Redis refuses. StateUnreadable:
    If the stored state cannot be decoded. ForeignValue: If a key holds a foreign value.
    """

    def __init__(self, connection: Connection, keys: Keys, address: str) -> None:
        self._connection = connection
        self._foreign: frozenset[str] = frozenset()
        self._optional = {command: LogOnce(*said, scope=keys.scope) for command, said in _OPTIONAL.items()}
        self.keys = keys
        self.address = address

    async def _run(
        self, script: Script, keys: Mapping[str, object], args: Sequence[str | int], more: Sequence[str] = ()
    ) -> list[Any]:
        """Return the answer of a script, without the parts it could not do, which are logged once.

        Args:
            script: To run.
            keys: Its keys, each with whether it is used this time.
            args: Its other arguments.
            more: Further keys, after the others.
        """
        answer: list[Any]
        *answer, foreign, optional = await self._connection.run(script, [*keys, *more], args)
        self._note_foreign([*(key for key, is_used in keys.items() if is_used), *more], foreign)
        for command, error in zip(optional[::2], optional[1::2], strict=True):
            self._note_optional(command, error)
        return answer

    def _note_optional(self, command: str, error: str) -> None:
        if error:
            self._optional[command].failed(explained(ResponseError(error), self.address))
        else:
            self._optional[command].worked()

    def _note_foreign(self, used: Sequence[str], foreign: Sequence[str]) -> None:
        for key in foreign:
            if key not in self._foreign:
                logger.warning("%s; until then nothing is kept there", foreign_key(key, self.address))
        self._foreign = self._foreign.difference(used).union(foreign)

    # -- by day -------------------------------------------------------------------------------------------------

    @reads_state
    async def metrics(self, days: int, now_s: float) -> dict[str, dict[str, str]]:
        """Return the counters of the last *days* UTC days that have any, newest first, by date.

        The time in each state is not included: see :meth:`time_in_state`.
        """
        days_s = _days_s(days, now_s)
        keys = [self.keys.metrics(day_s) for day_s in days_s]
        found: list[dict[str, str]] = await self._connection.execute(*(("HGETALL", key) for key in keys))
        counted = [{name: n for name, n in day.items() if name not in _TIMES.values()} for day in found]
        return {_date(day_s): counters for day_s, counters in zip(days_s, counted, strict=True) if counters}

    @reads_state
    async def add_metrics(self, counters: Mapping[str, int], *, at_s: float) -> None:
        key = self.keys.metrics(at_s)
        await self._connection.execute(*(("HINCRBY", key, name, amount) for name, amount in counters.items()))
        # Only now: a foreign key must not expire either.
        await self._connection.execute(("EXPIRE", key, int(KEPT_DAYS * DAY_S)))

    @reads_state
    async def time_in_state(self, days: int, now_s: float) -> dict[str, dict[BreakerState, float]]:
        """Return the seconds that the breaker was in each state, up to this moment, newest day first, by date.

        A day adds up to its length if the state was kept all day: the time after all processes have left, and the
        state has expired, belongs to no state. Days without any are left out.
        """
        days_s = _days_s(days, now_s)
        seconds, micros, state, found = await self._run(
            TIMES,
            {self.keys.state: True},
            [json_text(FIELDS), json_text(list(_TIMES.values()))],
            [self.keys.metrics(day_s) for day_s in days_s],
        )
        now_s = int(seconds) + int(micros) / 1e6
        record = parse({name: value for name, value in zip(FIELDS, state, strict=True) if value is not None}, now_s)
        running = times.passed(record, now_s)
        milliseconds = {
            day_s: {
                p: _count(n) + running.get(day_s, {}).get(p, 0) for p, n in zip(_TIMES, day or _NONE, strict=True)
            }
            for day_s, day in zip(days_s, found, strict=True)
        }
        return {
            _date(day_s): {p: ms / 1000 for p, ms in day.items()}
            for day_s, day in milliseconds.items()
            if any(day.values())
        }

    # -- what happened ------------------------------------------------------------------------------------------

    @reads_state
    async def history(self, limit: int = 100, *, before: str = "") -> list[dict[str, str]]:
        """Return the newest entries, newest first: ``epoch``, ``from``, ``to``, ``reason``, ``by``, ``at``, ``seq``.

        Transitions have a ``seq`` of 0; other entries within their epoch have a larger one.

        Args:
            limit: Maximum number.
            before: Only entries before ``<epoch>-<seq>``, to continue after the last answer; empty: all.
        """
        found: list[dict[str, str]] = []
        is_newest = not before
        for _ in range(HISTORY_READS):
            newest = f"({before}" if before else "+"
            (entries,) = await self._connection.execute(("XREVRANGE", self.keys.history, newest, "-", "COUNT", limit))
            found += [entry for name, fields in entries if (entry := _entry(name, fields))]
            if is_newest and entries and not _entry(*entries[0]):
                await self._mend_history()
            is_newest = False
            if len(found) >= limit or len(entries) < limit:
                break
            before = entries[-1][0]
        return found[:limit]

    @reads_state
    async def note(self, entry: Mapping[str, str], *, epoch: int, seq: int) -> bool:
        """Add an entry to the history that is not a transition.

        Args:
            entry: As returned by :meth:`history`; ``from`` and ``to`` are the same.
            epoch: Epoch in which it happened.
            seq: Above 0, and the same in all processes that may notice the same event: only the first one is
                recorded.

        Returns:
            Whether it was put there: not where somebody has said so already, or the epoch is over.
        """
        fields = [text for pair in entry.items() for text in pair]
        return bool(await self._connection.run(NOTE, [self.keys.history], [f"{epoch}-{seq}", json_text(fields)]))

    async def _mend_history(self) -> None:
        """A foreign entry is the newest one, and may block later entries."""
        with suppress(StoreError):
            await self._connection.run(MEND, [self.keys.history], [])

    @reads_state
    async def claim(self, name: str, number: int) -> bool:
        """Claim *number*: of all that claim it, or a lower one, under *name*, one process gets it."""
        return bool(await self._connection.run(CLAIM, [self.keys.state], [name, number]))

    @reads_state
    async def worker_errors(self, limit: int = 100, *, now_s: float) -> list[Presence]:
        """Return the newest errors that workers reported in the last seven days, newest first.

        Each has ``timestamp``, ``worker_id``, ``error_type``, ``error_message`` and ``status_code``.
        """
        found: list[Presence] = []
        for day_s in _days_s(ERROR_DAYS, now_s):
            if len(found) >= limit:
                break
            key = self.keys.worker_errors(day_s)
            (entries,) = await self._connection.execute(("LRANGE", key, 0, limit - len(found) - 1))
            found += [row for row in map(row_of, map(redact, entries)) if row]
        return found

    # -- who is there -------------------------------------------------------------------------------------------

    @reads_state
    async def heartbeat(self, worker: str, about: Mapping[str, Any]) -> None:
        """Record that *worker* is alive; ``about`` holds its version and when it was last seen."""
        await self._say(self.keys.workers, worker, about, WORKER_LIFE_S)

    @reads_state
    async def workers(self, limit: int = 1000) -> dict[str, Presence]:
        """Return the workers that were alive in the last ten minutes, the most recent first."""
        return await self._present(self.keys.workers, WORKER_LIFE_S, limit)

    @reads_state
    async def tell_paused(self, cluster: str, about: Mapping[str, Any]) -> None:
        """Record the workloads that the operator of *cluster* has paused.

        ``about`` holds ``last_seen``, and any other fields.
        """
        await self._say(self.keys.paused, cluster, about, PAUSED_LIFE_S)

    @reads_state
    async def paused(self, limit: int = 100) -> dict[str, Presence]:
        """Return the paused workloads by cluster, as recorded by operators, the most recent first."""
        return await self._present(self.keys.paused, PAUSED_LIFE_S, limit)

    async def _say(self, key: str, name: str, about: Mapping[str, Any], life_s: float) -> None:
        (is_new,) = await self._connection.execute(("HSET", key, name, json_text(about)))
        await self._connection.execute(("EXPIRE", key, int(life_s)))
        if is_new:
            await self._forget(key, life_s)

    async def _forget(self, key: str, life_s: float) -> None:
        """Adding a name removes expired ones, so there are never many more than live ones.

        Nor more than :data:`NAMES_MOST`, however many a client makes up.
        """
        now_s, found = await self._all(key)
        seen = {name: _seen_s(_object(text), now_s) for name, text in found.items()}
        latest = sorted(seen, key=lambda name: -seen[name])
        gone = [*(name for name in latest[:NAMES_MOST] if seen[name] < now_s - life_s), *latest[NAMES_MOST:]]
        if gone:
            await self._connection.execute(("HDEL", key, *gone))

    async def _present(self, key: str, life_s: float, limit: int) -> dict[str, Presence]:
        now_s, found = await self._all(key)
        rows = {redact(name): _object(redact(text)) for name, text in found.items()}
        alive = {name: about for name, about in rows.items() if _seen_s(about, now_s) >= now_s - life_s}
        return dict(sorted(alive.items(), key=lambda row: -_seen_s(row[1], now_s))[:limit])

    async def _all(self, key: str) -> tuple[float, dict[str, str]]:
        (seconds, _), found = await self._connection.execute(("TIME",), ("HGETALL", key))
        return float(seconds), found


def time_counters(milliseconds: Mapping[BreakerState, int]) -> dict[str, int]:
    """Return the time in each state as counters of a day's metrics."""
    return {_TIMES[phase]: ms for phase, ms in milliseconds.items() if ms}


def _days_s(days: int, now_s: float) -> list[float]:
    """Return the starts of the last *days* UTC days that are kept, newest first."""
    today_s = now_s // DAY_S * DAY_S
    return [today_s - DAY_S * back for back in range(min(days, KEPT_DAYS + 1))]


def _date(at_s: float) -> str:
    return iso(at_s)[:10]


def _seen_s(about: Presence, now_s: float) -> float:
    return moment_s(about.get("last_seen"), now_s)


def _entry(name: str, fields: Mapping[str, str]) -> dict[str, str] | None:
    """Return an entry of the history; None for a foreign one."""
    entry = dict.fromkeys(ENTRY, "") | {each: text_of(value, ENTRY_MOST) for each, value in fields.items()}
    epoch, _, seq = name.partition("-")
    is_ours = {entry["from"], entry["to"]} <= set(BreakerState) and unix_s(entry["at"])
    return {**entry, "epoch": epoch, "seq": seq} if is_ours else None


def _object(text: str) -> Presence:
    return object_of(text)


def _count(text: str | None) -> int:
    return whole(text, COUNTER_MOST)
