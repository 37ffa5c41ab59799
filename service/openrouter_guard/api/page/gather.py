"""Reads what the page shows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from openrouter_guard.api.service import Service
from openrouter_guard.errors import StoreError

from .board import DAYS, Board, days_of, headline, segments_of

__all__ = ["gather"]

HISTORY = 200
WORKERS = 100
_T = TypeVar("_T")


async def gather(service: Service) -> Board:
    """Everything on the page. What Redis does not give is None, and the page says so."""
    status = await service.status(force=False)
    now_s = service.now_s
    history, metrics, times, workers, paused = await asyncio.gather(
        _or_none(lambda: service.store.history(HISTORY)),
        _or_none(lambda: service.store.metrics(DAYS, now_s)),
        _or_none(lambda: service.store.time_in_state(DAYS, now_s)),
        _or_none(lambda: service.store.workers(WORKERS)),
        _or_none(service.store.paused),
    )
    state = status.circuit_breaker.state
    return Board(
        status=status,
        now_s=now_s,
        headline=headline(status),
        segments=segments_of(history or [], state and state.value, now_s),
        days=days_of(metrics or {}, times or {}, now_s),
        history=history,
        workers=workers,
        paused=paused and {cluster: about for cluster, about in paused.items() if about.get("workloads")},
    )


async def _or_none(read: Callable[[], Awaitable[_T]]) -> _T | None:
    try:
        return await read()
    except StoreError:
        return None
