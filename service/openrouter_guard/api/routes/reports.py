"""Reports of workers in other languages."""

from __future__ import annotations

from typing import cast

from fastapi import APIRouter, Request
from fastapi.responses import Response

from openrouter_guard.api.http.conditional import JSON
from openrouter_guard.api.http.problems import documented
from openrouter_guard.api.schemas.reports import ReportAnswer, ReportBody, Verdict

from .common import PREFIX, Scope, of_scope
from .write_access import OF_REPORTERS, ForReporters, breaker, wait_s

__all__ = ["router"]

router = APIRouter(prefix=PREFIX, tags=["write"], route_class=ForReporters)


@router.post(
    "/reports",
    summary="Report results of calls",
    response_model=ReportAnswer,
    responses=documented(400, 401, 403, 404, 413, 415, 422, 503),
    openapi_extra=OF_REPORTERS,
)
async def report(request: Request, body: ReportBody, scope: Scope = None) -> Response:
    """For workers in other languages; results count as those of the worker library do.

    A result that cannot be used is left out and named in `refused`; the others count. With a `sequence`, you can
    repeat a report whose fate is uncertain.
    """
    service = of_scope(request, scope)
    verdict = await service.reports.take(body)
    answer = ReportAnswer(
        results=len(body.results),
        refused=list(body.refused),
        verdict=cast("Verdict", verdict),
        retry_after_seconds=wait_s(service),
        circuit_breaker=breaker(service),
    )
    return Response(answer.model_dump_json(), media_type=JSON)
