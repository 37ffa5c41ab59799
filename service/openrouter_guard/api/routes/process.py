"""Endpoints about this process, for Kubernetes and Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from openrouter_guard.api.http.conditional import JSON
from openrouter_guard.api.http.problems import documented, problem
from openrouter_guard.api.schemas.status import Health, Readiness

from .common import of_app

__all__ = ["router"]

router = APIRouter(tags=["process"])


@router.get(
    "/livez",
    summary="Check whether this process makes progress",
    response_model=Health,
    responses=documented(503),
)
async def livez(request: Request) -> Response:
    """200 while the background tasks make progress; a missing Redis or OpenRouter is no reason for a restart."""
    stalled = of_app(request).stalled()
    if stalled:
        return problem(request, 503, f"no progress: {', '.join(stalled)}")
    return Response(Health(status="ok").model_dump_json(), media_type=JSON)


@router.get(
    "/readyz",
    summary="Check whether this process takes requests",
    response_model=Readiness,
    responses=documented(503),
)
async def readyz(request: Request) -> Response:
    """200 once started. Without Redis the service still answers, with the last known state; the body says so.

    A 503 would remove all replicas at once, and with them the gate, which lets calls go if no state is known.
    """
    scopes = of_app(request)
    if not scopes.is_ready:
        return problem(request, 503, "starting, or stopping")
    view = scopes.default.view  # all scopes use the same Redis
    waits = view.is_degraded and view.record is None
    answer = Readiness(status="waiting" if waits else "ok", redis="away" if view.is_degraded else "up")
    return Response(answer.model_dump_json(), media_type=JSON)


@router.get("/metrics", summary="Get metrics for Prometheus", response_class=Response)
async def prometheus(request: Request) -> Response:
    body, content_type = of_app(request).telemetry.render(request.headers.get("accept", ""))
    return Response(body, headers={"Content-Type": content_type})
