"""Reads the data of the page."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeAlias, TypeVar

from openrouter_guard.api.scope.service import Service
from openrouter_guard.errors import StoreError
from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.store import Store
from openrouter_guard.store.presence import Presence

from .view_model import DAYS, Beside, PageModel, days_of, headline, segments_of

__all__ = ["beside", "load_page"]

HISTORY = 200
WORKERS = 100
_T = TypeVar("_T")
_Read: TypeAlias = tuple[
    list[dict[str, str]] | None,
    dict[str, dict[str, str]] | None,
    dict[str, dict[BreakerState, float]] | None,
    dict[str, Presence] | None,
    dict[str, Presence] | None,
]
"""Transitions, counters by day, time in state by day, workers and paused workloads."""


async def load_page(service: Service) -> PageModel:
    """Read everything on the page. A part that Redis does not return is None, and the page says so."""
    status = await service.status(force=False)
    now = service.now
    # All open browsers together read once a second, and again when the state has changed.
    (history, metrics, times, workers, paused), _ = await service.recent.get(
        "page", service.version, lambda: _read(service.store, now)
    )
    state = status.circuit_breaker.state
    return PageModel(
        status=status,
        now=now,
        headline=headline(status),
        segments=segments_of(history or [], state and state.value, now),
        days=days_of(metrics or {}, times or {}, now),
        history=history,
        workers=workers,
        paused=paused and {cluster: about for cluster, about in paused.items() if about.get("workloads")},
    )


async def beside(services: Iterable[Service]) -> list[Beside]:
    """Return all scopes of this process."""
    return [Beside(each.settings.scope, headline(await each.status(force=False))) for each in services]


async def _read(store: Store, now: float) -> _Read:
    return await asyncio.gather(
        _or_none(store.history(HISTORY)),
        _or_none(store.metrics(DAYS, now)),
        _or_none(store.time_in_state(DAYS, now)),
        _or_none(store.workers(WORKERS)),
        _or_none(store.paused()),
    )


async def _or_none(reading: Awaitable[_T]) -> _T | None:
    try:
        return await reading
    except StoreError:
        return None
