"""A cold start on the real product: processes that start together on one Redis, with calls that fail by chance.

Each worker calls without a pause. Ours is how many of the starts opened the breaker.

"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from multiprocessing import get_context

import redis

from openrouter_guard import CallNotPermitted, Guard, Settings
from openrouter_guard.devtools.embedded import embedded_valkey
from openrouter_guard.rules.breaker import BreakerState

from .measuring import Effort, Row

__all__ = ["opens", "run"]

PROCESSES, WORKERS = 4, 50
ERROR_RATES = (0.02, 0.05, 0.1)
GOOD_S, FAILED_S = 15.0, 1.0
FOR_S = 8.0


def run(effort: Effort) -> Iterator[Row]:
    starts, for_s = max(1, effort.openings // 2), min(effort.period_s, FOR_S)
    context = get_context("spawn")
    with embedded_valkey() as url, context.Pool(PROCESSES) as pool:
        for error_rate in ERROR_RATES:
            found = 0
            for start in range(starts):
                with closing(redis.Redis.from_url(url)) as client:
                    client.flushall()
                seeds = range(PROCESSES * start, PROCESSES * (start + 1))
                arguments = [(url, error_rate, seed, GOOD_S, FAILED_S, for_s) for seed in seeds]
                found += any(pool.starmap(opens, arguments, chunksize=1))
            workers = PROCESSES * WORKERS
            yield Row(f"{workers} workers start, {error_rate:.0%} errors, of {starts}", found, "opened")


def opens(redis_url: str, error_rate: float, seed: int, good_s: float, failed_s: float, for_s: float) -> bool:
    """Whether the breaker opens within *for_s* seconds of a start of all workers of this process."""
    with Guard(Settings(redis_url)) as guard:
        guard.flush()
        until = time.monotonic() + for_s
        threads = [
            threading.Thread(target=_work, args=(guard, error_rate, f"{seed}/{number}", good_s, failed_s, until))
            for number in range(WORKERS)
        ]
        for thread in threads:
            thread.start()
        opened = False
        while time.monotonic() < until and not opened:
            time.sleep(0.02)
            opened = guard.state.phase is not BreakerState.CLOSED
        return opened


def _work(guard: Guard, error_rate: float, seed: str, good_s: float, failed_s: float, until: float) -> None:
    lot = random.Random(seed)
    while time.monotonic() < until:
        with suppress(TimeoutError, CallNotPermitted), guard.call():
            fails = lot.random() < error_rate
            time.sleep(min(failed_s if fails else good_s, max(until - time.monotonic(), 0.0)))
            if fails:
                raise TimeoutError
