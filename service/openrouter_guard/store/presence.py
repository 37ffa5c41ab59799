"""Which workers and operators are there: read in limited amounts, however many names a client makes up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from openrouter_guard.rules.parsing import object_of, parse_moment
from openrouter_guard.rules.redaction import redact
from openrouter_guard.rules.text import json_text
from openrouter_guard.rules.units import DAY_S
from openrouter_guard.unreadable import reads_state

from .scope_store import ScopeStore

__all__ = ["NAMES_MOST", "WORKER_LIFE_S", "WORKER_LIVE_S", "Presence", "Presences"]

WORKER_LIFE_S = 600.0
"""A worker without a heartbeat for this long is gone."""
WORKER_LIVE_S = 90.0
"""A worker sends a heartbeat every minute; this allows for a late one."""
NAMES_MOST = 10_000
"""Number of workers, or clusters, kept: those with the latest heartbeat."""
PAUSED_LIFE_S = DAY_S
"""How long an operator's list of paused workloads is valid unless it is repeated."""

Presence: TypeAlias = dict[str, Any]
"""A presence entry: a JSON object with ``last_seen``, ISO 8601."""


class Presences(ScopeStore):
    """The workers and operators of one scope."""

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
        now, found = await self._all(key)
        seen = {name: _last_seen(object_of(text), now) for name, text in found.items()}
        latest = sorted(seen, key=lambda name: -seen[name])
        gone = [*(name for name in latest[:NAMES_MOST] if seen[name] < now - life_s), *latest[NAMES_MOST:]]
        if gone:
            await self._connection.execute(("HDEL", key, *gone))

    async def _present(self, key: str, life_s: float, limit: int) -> dict[str, Presence]:
        now, found = await self._all(key)
        rows = {redact(name): object_of(redact(text)) for name, text in found.items()}
        alive = {name: about for name, about in rows.items() if _last_seen(about, now) >= now - life_s}
        return dict(sorted(alive.items(), key=lambda row: -_last_seen(row[1], now))[:limit])

    async def _all(self, key: str) -> tuple[float, dict[str, str]]:
        (seconds, _), found = await self._connection.execute(("TIME",), ("HGETALL", key))
        return float(seconds), found


def _last_seen(about: Presence, now: float) -> float:
    return parse_moment(about.get("last_seen"), now)
