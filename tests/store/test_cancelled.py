"""A task that talks to Redis ends when it is cancelled, at whatever moment."""

from __future__ import annotations

import asyncio
import itertools
import random
import time

from openrouter_guard.store import Batch, Store

ROUNDS = 60
TASKS = 4


async def report(store: Store, reporter: str) -> None:
    for seq in itertools.count(1):
        await store.count(Batch(0, reporter, seq, [("F", 1)]), at=time.time())


async def test_a_cancelled_task_ends(redis_url: str) -> None:
    lot = random.Random(0)
    for _ in range(ROUNDS):
        stores = [Store.from_url(redis_url) for _ in range(TASKS)]
        tasks = [asyncio.create_task(report(store, f"w{number}")) for number, store in enumerate(stores)]
        await asyncio.sleep(lot.uniform(0, 0.02))
        for task in tasks:
            task.cancel()
        _, going_on = await asyncio.wait(tasks, timeout=20)
        for task in going_on:
            task.cancel()
        for store in stores:
            await store.close()
        assert going_on == set()
