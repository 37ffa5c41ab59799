"""What changes the shared state; for those alone who have the token for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any, cast

from fastapi import APIRouter, Query, Request
from fastapi.exceptions import HTTPException, RequestValidationError
from fastapi.responses import Response
from starlette.types import Message

from openrouter_guard.api.answers import JSON
from openrouter_guard.api.auth import Access
from openrouter_guard.api.problems import documented
from openrouter_guard.api.service import Service
from openrouter_guard.api.status import status_answer
from openrouter_guard.api.write_schemas import (
    OverrideAnswered,
    OverrideBody,
    ReportAnswer,
    ReportBody,
    Verdict,
    Words,
)
from openrouter_guard.rules.override import Override
from openrouter_guard.rules.record import Record, overridden, released

from .common import PREFIX, Route, Scope, of_scope

__all__ = ["router"]

BODY_MAX_BYTES = 1_048_576
OVERRIDE_MAX_S = 30 * 86_400.0


class _ForWriters(Route):
    """Asks for the token before it reads anything, and reads no more than it can use."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def checked(request: Request) -> Response:
            access: Access = request.app.state.access
            access.require_write(request)
            if request.method == "POST" and not _is_json(request.headers.get("content-type", "")):
                raise HTTPException(415, "Send JSON, with 'Content-Type: application/json'")
            return await handle(Request(request.scope, _bounded(request.receive)))

        return checked


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == JSON or (media_type.startswith("application/") and media_type.endswith("+json"))


def _bounded(receive: Callable[[], Awaitable[Message]]) -> Callable[[], Awaitable[Message]]:
    taken_bytes = 0

    async def bounded() -> Message:
        nonlocal taken_bytes
        message = await receive()
        taken_bytes += len(message.get("body", b""))
        if taken_bytes > BODY_MAX_BYTES:
            raise HTTPException(413, f"A body may have {BODY_MAX_BYTES:,} bytes: send the results in parts")
        return message

    return bounded


router = APIRouter(prefix=PREFIX, tags=["write"], route_class=_ForWriters)

_OF_WRITERS: dict[str, Any] = {"security": [{"writeToken": []}]}


@router.post(
    "/reports",
    summary="Report what calls came to",
    response_model=ReportAnswer,
    responses=documented(400, 401, 403, 404, 413, 415, 422, 503),
    openapi_extra=_OF_WRITERS,
)
async def report(request: Request, body: ReportBody, scope: Scope = None) -> Response:
    """For workers in other languages; counted as the worker library's own results are.

    With a `sequence`, a report whose fate is uncertain can be sent again.
    """
    service = of_scope(request, scope)
    verdict = await service.reports.take(body)
    blocked = service.blocked
    answer = ReportAnswer(
        results=len(body.results),
        verdict=cast("Verdict", verdict),
        retry_after_seconds=blocked and round(blocked[0], 3),
        circuit_breaker=_breaker(service),
    )
    return Response(answer.model_dump_json(), media_type=JSON)


@router.post(
    "/override",
    summary="Decide over the breaker's head",
    response_model=OverrideAnswered,
    responses=documented(400, 401, 403, 404, 413, 415, 422, 503),
    openapi_extra=_OF_WRITERS,
)
async def override(request: Request, body: OverrideBody, scope: Scope = None) -> Response:
    """Replaces an earlier decision; ends by itself at `until`."""
    service = of_scope(request, scope)
    decided = Override(body.kind, body.who, body.why, _end_s(body, service.now_s))

    def decide(record: Record | None, now_s: float) -> Record:
        return overridden(service.cache.base(record, now_s), decided, now_s)

    await service.cache.change(decide)
    return _after(service)


@router.delete(
    "/override",
    summary="Let the breaker decide again",
    response_model=OverrideAnswered,
    responses=documented(401, 403, 404, 422, 503),
    openapi_extra=_OF_WRITERS,
)
async def end_override(
    request: Request, who: Annotated[Words, Query(description="Who ends it, for the history")], scope: Scope = None
) -> Response:
    """Ends the override; where there is none, nothing changes."""
    service = of_scope(request, scope)
    await service.cache.change(lambda record, now_s: record and released(record, by=who, now_s=now_s))
    return _after(service)


def _end_s(body: OverrideBody, now_s: float) -> float:
    until_s = body.until.timestamp()
    if now_s < until_s <= now_s + OVERRIDE_MAX_S:
        return until_s
    wrong = {
        "loc": ("body", "until"),
        "msg": "write a time that lies ahead, by 30 days at most",
        "type": "value_error",
    }
    raise RequestValidationError([wrong])


def _after(service: Service) -> Response:
    return Response(OverrideAnswered(circuit_breaker=_breaker(service)).model_dump_json(), media_type=JSON)


def _breaker(service: Service) -> Any:
    return status_answer(service.view, service.settings, is_live=False).circuit_breaker
