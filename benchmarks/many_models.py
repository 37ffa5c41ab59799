"""The cost of very many model names: users type them, so there may be any number.

Beside each number of names the first, and smallest, of them.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from statistics import median
from typing import cast

import redis

from openrouter_guard import CallNotPermitted, Guard, Settings
from openrouter_guard.rules.breaker import BreakerState
from tests.waiting import until

from .calling import FLUSH_S, WAIT_S
from .measuring import Effort, Row
from .valkey import embedded_valkey

__all__ = ["run"]

CALLS = 1000
"""In one report."""
CALLS_BEFORE = 20_000
"""That ended, and are not reported, when the outage begins."""
_MS = 1000.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What the calls to so many models cost.

    Attributes:
        script_us: Of the script that counts one report, in Redis.
        worker_ms: What the worker's background uses of a core for it.
        opens_ms: From an outage that begins just after many calls to the open breaker.
    """

    script_us: float
    worker_ms: float
    opens_ms: float


def run(effort: Effort) -> Iterator[Row]:
    fewest, *more = (_cost(names, effort.batches) for names in effort.names)
    yield from _rows(effort.names[0], fewest, None)
    for names, cost in zip(effort.names[1:], more, strict=True):
        yield from _rows(names, cost, fewest)


def _rows(names: int, cost: Cost, fewest: Cost | None) -> Iterator[Row]:
    peer: tuple[float | None, ...] = (None, None, None)
    if fewest is not None:
        peer = (fewest.script_us, fewest.worker_ms, fewest.opens_ms)
    yield Row(f"{names:,} models: the script, in Redis", cost.script_us, "µs", peer[0])
    yield Row(f"{names:,} models: the worker's background", cost.worker_ms, "ms a report", peer[1])
    yield Row(f"{names:,} models: an outage until the breaker opens", cost.opens_ms, "ms", peer[2])


def _cost(names: int, batches: int) -> Cost:
    called = itertools.cycle(f"user-{number}/model" for number in range(names))
    scripts_us, worker_s = [], []
    with embedded_valkey() as url, closing(redis.Redis.from_url(url)) as client, Guard(Settings(url)) as guard:
        # All of them once, so that what comes after is a fleet at work.
        _report(guard, called, names)
        for _ in range(batches):
            before, began_at = _scripts(client), time.process_time() - time.thread_time()
            _report(guard, called, CALLS)
            worker_s.append(time.process_time() - time.thread_time() - began_at)
            after = _scripts(client)
            scripts_us.append((after["usec"] - before["usec"]) / (after["calls"] - before["calls"]))
        for _ in range(CALLS_BEFORE):
            _call(guard, next(called))
        opens_s = _opens_s(guard)
    return Cost(median(scripts_us), median(worker_s) * _MS, opens_s * _MS)


def _report(guard: Guard, called: Iterator[str], calls: int) -> None:
    for _ in range(calls):
        _call(guard, next(called))
    guard.flush(FLUSH_S)


def _call(guard: Guard, model: str, status_code: int = 200) -> None:
    with guard.call(model) as call:
        call.answered(status_code)


def _opens_s(guard: Guard) -> float:
    began_at = time.monotonic()
    until(lambda: _is_open_after_a_failure(guard), seconds=WAIT_S)
    return time.monotonic() - began_at


def _is_open_after_a_failure(guard: Guard) -> bool:
    try:
        _call(guard, "openai/gpt-4o", 503)
    except CallNotPermitted:
        return True
    return guard.state.phase is BreakerState.OPEN


def _scripts(client: redis.Redis) -> dict[str, int]:
    found = cast("dict[str, dict[str, int]]", client.info("commandstats"))
    return found["cmdstat_evalsha"]
