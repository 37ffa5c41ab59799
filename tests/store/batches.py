"""Reports of workers, for tests of the store."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from openrouter_guard.rules import evaluation
from openrouter_guard.rules.breaker import Policy
from openrouter_guard.rules.models import Run
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.store import Batch, Counted, Store

__all__ = ["failed_calls", "failures", "report", "settle", "store_at"]

_seqs = itertools.count(1)


@asynccontextmanager
async def store_at(url: str, scope: str = "default") -> AsyncIterator[Store]:
    store = Store.from_url(url, scope)
    try:
        yield store
    finally:
        await store.close()


def failures(count: int, reporter: str) -> Batch:
    """So many failures, with something for each of the keys that a batch may touch."""
    return Batch(
        epoch=0,
        reporter=reporter,
        seq=next(_seqs),
        runs=[("F", count)],
        counters={"failed_calls": count},
        errors=['{"error_type": "timeout"}'],
        models={"some/model": Run(failures=count, reason="timeout")},
    )


async def report(store: Store, count: int = 1, *, reporter: str = "wa") -> Counted:
    """Report failures, once."""
    return await store.count(failures(count, reporter), at=time.time())


async def failed_calls(store: Store) -> int:
    """How many failures are kept."""
    days = await store.metrics(1, time.time())
    return sum(int(day["failed_calls"]) for day in days.values())


def settle(record: SharedState | None, now: float) -> SharedState | None:
    """What follows from what is stored."""
    return record and evaluation.evaluate(record, now=now, policy=Policy(), by="somebody")
