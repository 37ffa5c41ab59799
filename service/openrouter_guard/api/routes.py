"""The HTTP interface: translates, and nothing else."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from openrouter_guard.rules.wire import iso

from .problems import UnknownScope, documented, problem
from .schemas import Health, MetricsAnswer, StatusAnswer
from .service import Service

__all__ = ["router"]

router = APIRouter()

_JSON = "application/json"


Scope = Annotated[str | None, Query(description="Whose state; the configured scope if left out")]


# Not dependencies: resolving them would take longer than all of the service's own work for a request.
def of_app(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def of_scope(request: Request, scope: str | None) -> Service:
    service = of_app(request)
    if scope not in (None, service.settings.scope):
        raise UnknownScope(f"This service looks after scope {service.settings.scope!r} only")
    return service


@router.get(
    "/api/v1/openrouter/status",
    tags=["state"],
    summary="What is known of OpenRouter",
    response_model=StatusAnswer,
    responses=documented(404, 422),
)
async def status(
    request: Request,
    force_refresh: Annotated[
        bool, Query(description="Ask OpenRouter where a check may be made: one a minute for the whole fleet")
    ] = False,
    scope: Scope = None,
) -> Response:
    """Answers from memory.

    OpenRouter is asked at most once a minute for the whole fleet and never while calls are refused. A request waits
    for that only where the last check is older than the stale threshold, or where it is forced.
    """
    answer = await of_scope(request, scope).status(force=force_refresh)
    # Validated when it was built: once is enough.
    return Response(answer.model_dump_json(), media_type=_JSON)


@router.get(
    "/api/v1/openrouter/metrics",
    tags=["state"],
    summary="The fleet's counters by day",
    response_model=MetricsAnswer,
    responses=documented(404, 422, 503),
)
async def metrics(
    request: Request,
    days: Annotated[int, Query(ge=1, le=30, description="How many UTC days, today included")] = 7,
    scope: Scope = None,
) -> Response:
    service = of_scope(request, scope)
    found = await service.metrics(days)
    answer = MetricsAnswer(metrics=found, days=days, generated_at=iso(service.now_s))
    return Response(answer.model_dump_json(), media_type=_JSON)


@router.get(
    "/livez",
    tags=["process"],
    summary="Whether this process still works",
    response_model=Health,
    responses=documented(503),
)
async def livez(request: Request) -> Response:
    """200 while the background tasks make progress; Redis or OpenRouter being away is no reason for a restart."""
    stalled = of_app(request).stalled()
    if stalled:
        return problem(request, 503, f"no progress: {', '.join(stalled)}")
    return Response(Health(status="ok").model_dump_json(), media_type=_JSON)


@router.get(
    "/readyz",
    tags=["process"],
    summary="Whether this process takes requests",
    response_model=Health,
    responses=documented(503),
)
async def readyz(request: Request) -> Response:
    """200 once started: without Redis it answers all the same, with the last known state."""
    if not of_app(request).is_ready:
        return problem(request, 503, "starting, or stopping")
    return Response(Health(status="ok").model_dump_json(), media_type=_JSON)


@router.get("/metrics", tags=["process"], summary="For Prometheus", response_class=Response)
async def prometheus(request: Request) -> Response:
    body, content_type = of_app(request).telemetry.render(request.headers.get("accept", ""))
    return Response(body, headers={"Content-Type": content_type})
