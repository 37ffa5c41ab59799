"""History, workers and single models."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from openrouter_guard.api.http.conditional import KEPT, XCache, json_answer
from openrouter_guard.api.http.problems import documented
from openrouter_guard.api.schemas.activity import HistoryAnswer, ModelsAnswer, PausedAnswer, WorkersAnswer
from openrouter_guard.api.status import activity
from openrouter_guard.store import Store
from openrouter_guard.store.presence import Presence

from .common import PREFIX, Route, Scope, of_scope, read

__all__ = ["router"]

router = APIRouter(prefix=PREFIX, tags=["record"], route_class=Route)

ERRORS_READ = 1000
WORKERS_READ = 100_000
"""All live workers, to count them."""
ENTRY_ID = r"^([0-9]{1,18}-[0-9]{1,18})?$"

Limit = Annotated[int, Query(ge=1, le=1000, description="Maximum number of entries")]


@router.get(
    "/history",
    summary="List the transitions of the breaker, newest first",
    response_model=HistoryAnswer,
    responses={**KEPT, **documented(404, 422, 503)},
)
async def history(
    request: Request,
    limit: Limit = 100,
    days: Annotated[int, Query(ge=1, le=30, description="Number of days of 24 hours to include")] = 30,
    before: Annotated[
        str, Query(description="Only entries older than this: `next_before` of the last answer", pattern=ENTRY_ID)
    ] = "",
    scope: Scope = None,
) -> Response:
    service = of_scope(request, scope)
    question = ("history", limit, before)
    entries, cached = await read(service, question, lambda: service.store.history(limit + 1, before=before))
    answer = activity.history(entries, limit=limit, days=days, now=service.now, scope=service.settings.scope)
    return json_answer(request, answer.model_dump_json(by_alias=True), Age=0, X_Cache=cached)


@router.get(
    "/workers",
    summary="List the workers that report",
    response_model=WorkersAnswer,
    responses={**KEPT, **documented(404, 422, 503)},
)
async def workers(request: Request, limit: Limit = 100, scope: Scope = None) -> Response:
    """The workers seen within ten minutes; those of earlier systems appear only after an error."""
    service = of_scope(request, scope)
    now = service.now
    (beats, errors), cached = await read(service, "workers", lambda: _reporters(service.store, now))
    answer = activity.workers(beats, errors, limit=limit, now=now, scope=service.settings.scope)
    return json_answer(request, answer.model_dump_json(), Age=0, X_Cache=cached)


async def _reporters(store: Store, now: float) -> tuple[dict[str, Presence], list[Presence]]:
    return await store.workers(WORKERS_READ), await store.worker_errors(ERRORS_READ, now=now)


@router.get(
    "/paused",
    summary="List the workloads that operators have paused",
    response_model=PausedAnswer,
    responses={**KEPT, **documented(404, 422, 503)},
)
async def paused(request: Request, limit: Limit = 100, scope: Scope = None) -> Response:
    """The paused workloads by cluster, as reported by its operator."""
    service = of_scope(request, scope)
    clusters, cached = await read(service, ("paused", limit), lambda: service.store.paused(limit))
    answer = activity.paused(clusters, scope=service.settings.scope)
    return json_answer(request, answer.model_dump_json(), Age=0, X_Cache=cached)


@router.get(
    "/models",
    summary="List single models, and whether their calls wait",
    response_model=ModelsAnswer,
    responses={**KEPT, **documented(404, 422)},
)
async def models(request: Request, limit: Limit = 100, scope: Scope = None) -> Response:
    """Answered from memory. `:free` stands for all models whose names end in it, because they share a cap."""
    service = of_scope(request, scope)
    view = service.view
    answer = activity.models(view, service.settings, limit=limit)
    cached = XCache.STALE if view.is_degraded else XCache.HIT
    return json_answer(request, answer.model_dump_json(), X_Cache=cached)
