"""The state of OpenRouter, and the counters by day."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from openrouter_guard.api.http.conditional import KEPT, XCache, json_answer, without
from openrouter_guard.api.http.problems import documented
from openrouter_guard.api.schemas.status import MetricsAnswer, Source, StatusAnswer
from openrouter_guard.api.stats.figures import news
from openrouter_guard.api.status.gate import whole_s
from openrouter_guard.rules.time_in_state import KEPT_DAYS

from .common import PREFIX, Lenient, Scope, of_scope, read

__all__ = ["router"]

router = APIRouter(prefix=PREFIX, tags=["state"], route_class=Lenient)

_X_CACHE = {Source.CACHE: XCache.HIT, Source.STALE: XCache.STALE, Source.LIVE: XCache.MISS}


@router.get(
    "/status",
    summary="Get the state of OpenRouter",
    response_model=StatusAnswer,
    responses={**KEPT, **documented(404, 422)},
)
async def status(
    request: Request,
    force_refresh: Annotated[
        bool,
        Query(description="Check OpenRouter now, if the limit of one check a minute for the whole fleet allows it"),
    ] = False,
    scope: Scope = None,
) -> Response:
    """Answered from memory.

    The service asks OpenRouter at most once a minute for the whole fleet, and never while calls are refused. A
    request waits for that only if the last check is older than the stale threshold, or if it forces one.
    """
    service = of_scope(request, scope)
    answer = await service.status(force=force_refresh)
    # Validated when it was built; once is enough.
    body = answer.model_dump_json()
    refused = service.refusal
    return json_answer(
        request,
        body,
        stable=without(body, "age_seconds"),
        Age=None if answer.age_seconds is None else int(answer.age_seconds),
        X_Cache=_X_CACHE[answer.source],
        Retry_After=refused and whole_s(refused.retry_after_s),
    )


@router.get(
    "/metrics",
    summary="Get the fleet's counters by day",
    response_model=MetricsAnswer,
    responses={**KEPT, **documented(404, 422, 503)},
)
async def metrics(
    request: Request,
    days: Annotated[int, Query(ge=1, description="Number of UTC days, including today; the service keeps 31")] = 7,
    scope: Scope = None,
) -> Response:
    service = of_scope(request, scope)
    # Days that are not kept need not be read, so many numbers of days are one question.
    kept = min(days, KEPT_DAYS + 1)
    found, cached = await read(service, ("metrics", kept), lambda: service.metrics(kept))
    answer = found.model_copy(update={"days": days})
    return json_answer(request, answer.model_dump_json(), stable=news(answer), Age=0, X_Cache=cached)
