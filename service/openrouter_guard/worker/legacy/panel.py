"""The fleet's breaker for the panel of a worker process: plain functions, under the existing names.

Each asks Redis separately, from any thread, with or without an event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .manager import OpenRouterStateManager

__all__ = ["get_circuit_breaker_status", "open_circuit_breaker", "reset_circuit_breaker"]

WHO = "panel"
OPEN_S = 900.0


def get_circuit_breaker_status(redis_client: Any = None) -> dict[str, Any]:
    """Return the breaker as a panel shows it; if Redis is away, ``state`` is ``unknown``.

    Args:
        redis_client: A client of redis-py or an address; without, ``REDIS_URL``.

    Returns:
        ``state`` (closed, open, half_open or unknown), ``success_count`` (of the fleet, today), ``fail_count`` (in a
        row) and ``note``.
    """
    return _asked(redis_client, OpenRouterStateManager.breaker_status)


def open_circuit_breaker(redis_client: Any = None, *, for_s: float = OPEN_S, who: str = WHO) -> dict[str, Any]:
    """Let no call of the fleet go for this many seconds; return the result of :func:`get_circuit_breaker_status`.

    Raises:
        StoreError: If Redis does not accept it.
    """

    async def opened(manager: OpenRouterStateManager) -> dict[str, Any]:
        await manager.set_override("forced_open", who=who, why="opened by hand", for_s=for_s)
        return await manager.breaker_status()

    return _asked(redis_client, opened)


def reset_circuit_breaker(redis_client: Any = None, *, who: str = WHO) -> dict[str, Any]:
    """Close the breaker of the fleet and end an override; return the result of :func:`get_circuit_breaker_status`.

    Raises:
        StoreError: If Redis does not accept it.
    """

    async def reset(manager: OpenRouterStateManager) -> dict[str, Any]:
        await manager.reset(who=who)
        return await manager.breaker_status()

    return _asked(redis_client, reset)


def _asked(
    redis_client: Any, question: Callable[[OpenRouterStateManager], Coroutine[Any, Any, dict[str, Any]]]
) -> dict[str, Any]:
    async def ask() -> dict[str, Any]:
        async with OpenRouterStateManager(redis_client) as manager:
            return await question(manager)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, ask()).result()
