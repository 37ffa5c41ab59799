"""Overrides, only with the write token."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response

from openrouter_guard.api.http.conditional import JSON
from openrouter_guard.api.http.problems import documented
from openrouter_guard.api.schemas.fields import Words
from openrouter_guard.api.schemas.overrides import OverrideAnswered, OverrideBody
from openrouter_guard.api.scope.service import Service
from openrouter_guard.rules.override import OVERRIDE_MOST_S, Override
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.rules.transitions import overridden, released

from .common import PREFIX, Scope, of_scope
from .write_access import OF_WRITERS, ForWriters, breaker

__all__ = ["router"]

router = APIRouter(prefix=PREFIX, tags=["write"], route_class=ForWriters)


@router.post(
    "/override",
    summary="Override the breaker",
    response_model=OverrideAnswered,
    responses=documented(400, 401, 403, 404, 413, 415, 422, 503),
    openapi_extra=OF_WRITERS,
)
async def override(request: Request, body: OverrideBody, scope: Scope = None) -> Response:
    """Replaces an earlier override; ends at `until`."""
    service = of_scope(request, scope)
    decided = Override(body.kind, body.who, body.why, _end_of(body, service.now))

    def decide(record: SharedState | None, now: float) -> SharedState:
        return overridden(service.cache.base(record, now), decided, now)

    await service.cache.change(decide)
    return _after(service)


@router.delete(
    "/override",
    summary="End the override",
    response_model=OverrideAnswered,
    responses=documented(401, 403, 404, 422, 503),
    openapi_extra=OF_WRITERS,
)
async def end_override(
    request: Request,
    who: Annotated[Words, Query(description="Name of the person who ends it, for the history")],
    scope: Scope = None,
) -> Response:
    """Ends the override; without one, nothing changes."""
    service = of_scope(request, scope)
    await service.cache.change(lambda record, now: record and released(record, by=who, now=now))
    return _after(service)


def _end_of(body: OverrideBody, now: float) -> float:
    until = body.until.timestamp()
    if now < until <= now + OVERRIDE_MOST_S:
        return until
    wrong = {
        "loc": ("body", "until"),
        "msg": "write a time in the future, at most 30 days ahead",
        "type": "value_error",
    }
    raise RequestValidationError([wrong])


def _after(service: Service) -> Response:
    return Response(OverrideAnswered(circuit_breaker=breaker(service)).model_dump_json(), media_type=JSON)
