"""The list of paused workloads on the status page."""

from __future__ import annotations

import asyncio
from typing import Any

from openrouter_guard.store import Store

__all__ = ["CLUSTER", "told"]

CLUSTER = "east"


def told(redis_url: str) -> dict[str, Any]:
    """What the operator of that cluster has said last; empty if it has not said anything."""

    async def paused() -> dict[str, Any]:
        store = Store.from_url(redis_url)
        try:
            return dict((await store.paused()).get(CLUSTER, {}))
        finally:
            await store.close()

    return asyncio.run(paused())
