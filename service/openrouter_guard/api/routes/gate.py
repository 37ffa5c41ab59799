"""Whether calls may go, for machines and as a picture."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from openrouter_guard.api import badge as badges
from openrouter_guard.api.answers import JSON, KEPT, answer
from openrouter_guard.api.gating import gate as decide
from openrouter_guard.api.problems import documented, problem
from openrouter_guard.api.record_schemas import GateAnswer
from openrouter_guard.errors import refusal_headers

from .common import PREFIX, Lenient, Route, Scope, of_scope

__all__ = ["router"]

router = APIRouter(prefix=PREFIX, tags=["state"], route_class=Route)
pictures = APIRouter(route_class=Lenient)

_SVG = "image/svg+xml"
Model = Annotated[
    str,
    Query(
        description="Ask for calls to this model, such as openai/gpt-4o", max_length=200, examples=["openai/gpt-4o"]
    ),
]


@router.get(
    "/gate",
    summary="Whether calls may go",
    response_model=GateAnswer,
    responses=documented(404, 422, 503),
)
async def gate(request: Request, model: Model = "", scope: Scope = None) -> Response:
    """200 while calls may go; 503 with `Retry-After` while the breaker is not closed, or the account is rate limited.

    Without Redis calls go, as workers let them, unless a deadline is known that has not passed.
    """
    service = of_scope(request, scope)
    view = service.view
    verdict = decide(view, service.settings.policy, model)
    if verdict.permits:
        body = GateAnswer(permitted=True, degraded=view.is_degraded, scope=service.settings.scope)
        return Response(body.model_dump_json(), media_type=JSON)
    detail = f"Calls to OpenRouter are paused ({verdict.reason})"
    return problem(
        request, 503, detail, refusal_headers(verdict.retry_after_s, verdict.reason), reason=verdict.reason
    )


@pictures.get(
    "/badge",
    summary="The state as a picture",
    response_class=Response,
    responses={
        **KEPT,
        **documented(404, 422),
        200: {**KEPT[200], "description": "An SVG", "content": {_SVG: {"schema": {"type": "string"}}}},
    },
)
async def badge(request: Request, scope: Scope = None) -> Response:
    """For a README or a dashboard; may be kept for half a minute."""
    service = of_scope(request, scope)
    words, colour = badges.words(service.view)
    svg = badges.svg("OpenRouter", words, colour).encode()
    return answer(request, svg, _SVG, cache_control=f"max-age={badges.KEEP_S}")


router.include_router(pictures)
