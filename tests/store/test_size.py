"""No key grows beyond the size in docs/redis.md."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import redis.asyncio as aioredis

from openrouter_guard.rules import latency
from openrouter_guard.rules.breaker import Policy
from openrouter_guard.rules.codec import iso
from openrouter_guard.rules.evaluation import evaluate
from openrouter_guard.rules.models import KEPT, Run
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.rules.signals import ErrorType, OpenRouterState, classify_status
from openrouter_guard.rules.transitions import now_closed
from openrouter_guard.store import Batch, Store
from openrouter_guard.worker.reporting.batches import error_details

DOCS = Path(__file__).parents[2] / "docs" / "redis.md"
_ROW = re.compile(r"^\| `openrouter:([a-z_]+)(?::\{date\})?` \|.*\| ([\d,]+) KB[^|]*\|$", re.MULTILINE)
WORKER = "a-namespace/a-worker-of-some-length-7d9c5b8f6-abcde"
WORKERS = 100
REPORTERS = 1_000
ERRORS = 1_200
CHANGES = 10_300
_STATES = [f"state_{name}" for name in (*OpenRouterState, *ErrorType)]
COUNTERS = dict.fromkeys((*latency.FIELDS, latency.SUM, "total_calls", "successful_calls", *_STATES), 10**12)


def documented() -> dict[str, int]:
    return {name: 1024 * int(size.replace(",", "")) for name, size in _ROW.findall(DOCS.read_text())}


async def fill(store: Store, client: aioredis.Redis) -> None:
    now = time.time()
    failure = classify_status(502, error={"message": "x" * 5_000, "metadata": {"provider_name": "Acme"}}, now=now)
    details = error_details(failure, WORKER, now)
    names = (f"{'a' * 64}/{'b' * 57}-{number:05d}" for number in range(2 * KEPT))
    runs = {name: Run(failures=1, until=now + 60, reason="service_unavailable") for name in names}
    told = {"state": "service_unavailable", "message": failure.message, "error_details": details}
    times = dict.fromkeys(("last_check", "last_api_call", "last_success"), iso(now))
    ring = "".join(f"h{number:012x}:{2**53 - 1}:{int(now)} " for number in range(REPORTERS))
    await client.hset(store.keys.state, "reporters", ring)
    for number in range(WORKERS):
        await store.heartbeat(f"{WORKER}-{number}", {"version": "0.1.0", "last_seen": iso(now)})
    errors, window = [details] * ERRORS, (9, 9, 9, 60)
    batch = Batch(0, "hffffffffffff", 1, [("F", 1)], told | times, COUNTERS, errors, runs, window=window)
    await store.count(batch, at=now)
    for _ in range(8):
        await store.change(lambda record, at: record and opened_or_closed(record, at))
    entry: dict[Any, Any] = {"from": "half_open", "to": "closed", "reason": "timeout", "by": WORKER, "at": iso(now)}
    async with client.pipeline() as pipe:
        for number in range(CHANGES):
            pipe.xadd(store.keys.history, entry, id=f"{int(now * 1000) + number + 60_000}-0", maxlen=10_000)
        await pipe.execute()


def opened_or_closed(record: SharedState, at: float) -> SharedState | None:
    after = evaluate(record, now=at, policy=Policy(), by=WORKER)
    return after if after != record else now_closed(record, WORKER, at)


async def test_what_each_key_takes(store: Store, client: aioredis.Redis) -> None:
    await fill(store, client)
    now = time.time()
    keys = {
        "state": store.keys.state,
        "metrics": store.keys.metrics(now),
        "worker_errors": store.keys.worker_errors(now),
        "history": store.keys.history,
        "models": store.keys.models,
        "workers": store.keys.workers,
    }
    most = documented()
    assert most.keys() == keys.keys()
    most["workers"] *= WORKERS
    for name, key in keys.items():
        size = await client.memory_usage(key, samples=0) or 0
        # Neither more, nor so little that the figure says nothing.
        assert most[name] / 8 <= size <= most[name], name
    most["workers"] *= 1_000 // WORKERS
    assert sum(most.values()) + 7 * most["worker_errors"] + 30 * most["metrics"] < 8 * 1024**2
