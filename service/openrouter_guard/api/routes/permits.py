"""Permits for workers in other languages."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.exceptions import HTTPException
from fastapi.responses import Response

from openrouter_guard.api.http.conditional import JSON
from openrouter_guard.api.http.problems import documented, problem
from openrouter_guard.api.schemas.permits import PermitAnswer, PermitBody, SettledAnswer
from openrouter_guard.api.schemas.reports import ResultBody
from openrouter_guard.api.scope.permits import Granted, PermitGone
from openrouter_guard.api.scope.service import Service
from openrouter_guard.errors import CallNotPermitted

from .common import PREFIX, Scope, of_scope
from .write_access import OF_REPORTERS, ForReporters, breaker, wait_s

__all__ = ["router"]

router = APIRouter(prefix=f"{PREFIX}/permits", tags=["write"], route_class=ForReporters)

PermitId = Annotated[str, Path(description="The permit, as returned by `POST /permits`", max_length=2000)]
_WRONG = (400, 401, 403, 404, 410, 413, 415, 422, 503)


@router.post(
    "",
    summary="Take a permit for one call",
    status_code=201,
    response_model=PermitAnswer,
    responses={**documented(400, 401, 403, 404, 413, 415, 422, 503), 200: {"model": PermitAnswer}},
    openapi_extra=OF_REPORTERS,
)
async def take_permit(request: Request, body: PermitBody, scope: Scope = None) -> Response:
    """201 with a permit while the breaker is half-open; 200 without one while calls go.

    503 with `Retry-After` while calls must wait, or all permits are out. The whole fleet has two, whatever language
    its workers use. A permit that is neither renewed nor returned within its lease is free again.
    """
    service = of_scope(request, scope)
    try:
        granted = await service.permits.take(body)
    except CallNotPermitted as refused:
        detail = f"Calls to OpenRouter are paused ({refused.reason})"
        return problem(request, 503, detail, refused.headers, reason=refused.reason)
    return _granted(service, granted, 201 if granted.permit else 200)


@router.put(
    "/{permit}",
    summary="Renew a permit for one more lease",
    response_model=PermitAnswer,
    responses=documented(401, 403, 404, 410, 422, 503),
    openapi_extra=OF_REPORTERS,
)
async def renew_permit(request: Request, permit: PermitId, scope: Scope = None) -> Response:
    """410 if the permit has expired: the result of its call decides nothing."""
    service = of_scope(request, scope)
    try:
        return _granted(service, await service.permits.renew(permit), 200)
    except PermitGone:
        raise HTTPException(410, "This permit has expired: its call decides nothing any more") from None


@router.delete(
    "/{permit}",
    summary="Return a permit, with the result of its call",
    response_model=SettledAnswer,
    responses=documented(*_WRONG),
    openapi_extra=OF_REPORTERS,
)
async def end_permit(
    request: Request, permit: PermitId, body: ResultBody | None = None, scope: Scope = None
) -> Response:
    """A result decides whether calls go again, and counts like a report. Without a result, the permit is free again.

    A late result appears only in the metrics.
    """
    service = of_scope(request, scope)
    try:
        verdict = await service.permits.end(permit, body)
    except PermitGone:
        raise HTTPException(410, "This permit was not issued by this service") from None
    answer = SettledAnswer(verdict=verdict, retry_after_seconds=wait_s(service), circuit_breaker=breaker(service))
    return Response(answer.model_dump_json(), media_type=JSON)


def _granted(service: Service, granted: Granted, status_code: int) -> Response:
    lease_s = service.settings.policy.permit_lease_s if granted.permit else None
    answer = PermitAnswer(permit=granted.permit, lease_seconds=lease_s, ramp=granted.ramp, epoch=granted.epoch)
    return Response(answer.model_dump_json(), status_code, media_type=JSON)
