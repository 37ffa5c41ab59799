"""What ``openrouter-guard doctor`` asks Redis: nothing is written, and nothing beyond a worker's rights is needed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from statistics import median

from openrouter_guard.address import Address
from openrouter_guard.errors import StoreRefused
from openrouter_guard.keys import DEFAULT_SCOPE, Keys

from .connection import Connection, Script
from .server_discovery import Timeouts

__all__ = ["PARTS", "Inspection", "needed"]

PARTS = ("worker", "service", "operator")
_SAMPLES = 5
_MAY = Script("""
local missing = {}
for index, words in ipairs(cjson.decode(ARGV[1])) do
  local works, may = pcall(redis.acl_check_cmd, unpack(words))
  if not works or not may then missing[#missing + 1] = index end
end
return missing
""")
"""Redis itself says what its user may do, without doing it."""


def needed(part: str, keys: Keys, now: float) -> list[tuple[str, ...]]:
    """Return the commands that a part sends, each with a key or a channel of its own, as in docs/redis.md."""
    metrics, errors = keys.metrics(now), keys.worker_errors(now)
    common = [
        ("ping",),
        ("time",),
        ("client", "setname", "openrouter-guard"),
        ("eval", "return 1", "1", keys.state),
        ("evalsha", "0" * 40, "1", keys.state),
        ("subscribe", keys.events),
        ("unsubscribe", keys.events),
        ("publish", keys.events, ""),
        ("hget", keys.state, "state"),
        ("hmget", keys.state, "state"),
        ("hset", keys.state, "state", ""),
        ("hdel", keys.state, "state"),
        ("hgetall", keys.models),
        ("hset", keys.models, "model", ""),
        ("hincrby", metrics, "calls", "1"),
        ("expire", metrics, "1"),
        ("xadd", keys.history, "*", "from", ""),
    ]
    presence = [("hset", keys.workers, "name", ""), ("hgetall", keys.workers)]
    paused = [("hset", keys.paused, "name", ""), ("hgetall", keys.paused)]
    logged = [("lpush", errors, ""), ("ltrim", errors, "0", "1")]
    reading = [
        ("lrange", errors, "0", "1"),
        ("xrange", keys.history, "-", "+"),
        ("xrevrange", keys.history, "+", "-"),
        ("del", keys.history),
    ]
    more = {"worker": [*presence, *logged], "operator": paused, "service": [*presence, *paused, *logged, *reading]}
    return [*common, *more[part]]


class Inspection:
    """Looks at the server that holds a scope.

    Every method raises: StoreUnavailable: If Redis is away or slow. StoreRefused: If Redis refuses.
    """

    def __init__(self, address: Address, scope: str = DEFAULT_SCOPE, timeouts: Timeouts | None = None) -> None:
        self.address = str(address)
        self._keys = Keys(scope)
        self._connection = Connection(address, timeouts or Timeouts())

    async def close(self) -> None:
        await self._connection.close()

    async def clock(self) -> tuple[float, float]:
        """Return the server's time, and how far this machine's clock is ahead of it, in seconds."""
        asked_at = time.time()
        ((seconds, micros),) = await self._connection.execute(("TIME",))
        now = int(seconds) + int(micros) / 1e6
        return now, (asked_at + time.time()) / 2 - now

    async def latency_s(self) -> float:
        """Return the median of a few round trips, in seconds; the first connects and does not count."""
        await self._connection.execute(("PING",))
        took: list[float] = []
        for _ in range(_SAMPLES):
            began_at = time.perf_counter()
            await self._connection.execute(("PING",))
            took.append(time.perf_counter() - began_at)
        return median(took)

    async def server(self) -> Mapping[str, str] | None:
        """Return what ``INFO`` says of the server, its memory and its persistence; None without that right."""
        try:
            (found,) = await self._connection.execute(("INFO",))
        except StoreRefused:
            return None
        if isinstance(found, dict):
            return {str(name): str(value) for name, value in found.items()}
        pairs = (line.partition(":") for line in str(found).splitlines() if ":" in line)
        return {name: value.strip() for name, _, value in pairs}

    async def missing_rights(self, part: str) -> Sequence[str]:
        """Return the commands that a part needs and the user may not use, with their keys."""
        now, _ = await self.clock()
        wanted = needed(part, self._keys, now)
        missing = await self._connection.run(_MAY, [self._keys.state], [json.dumps(wanted)])
        return [_shown(wanted[int(index) - 1]) for index in missing]


def _shown(words: Sequence[str]) -> str:
    if words[0] in {"eval", "evalsha"}:
        return words[0]
    return " ".join(words[:2])
