"""The gate, for programs, and the badge, a picture."""

from __future__ import annotations

import math
import time
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from openrouter_guard.api.http.conditional import JSON, KEPT, answer, etag, has
from openrouter_guard.api.http.middleware import waited
from openrouter_guard.api.http.open_requests import TooManyClients
from openrouter_guard.api.http.problems import documented, problem
from openrouter_guard.api.schemas.activity import GateAnswer
from openrouter_guard.api.scope.service import Service
from openrouter_guard.api.status import badge as badges
from openrouter_guard.api.status.gate import fingerprint, ramp
from openrouter_guard.api.status.gate import gate as decide
from openrouter_guard.errors import refusal_headers

from .common import FULL, PREFIX, Lenient, Route, Scope, of_scope

__all__ = ["router"]

router = APIRouter(prefix=PREFIX, tags=["state"], route_class=Route)
pictures = APIRouter(route_class=Lenient)

_SVG = "image/svg+xml"
WAIT_MOST_S = 60
RETRY_S = 5
"""When to ask again if too many clients wait.

A service that answers all the same reports a change within this time.
"""
Model = Annotated[
    str,
    Query(
        description="Also check the cooldown of this model, such as openai/gpt-4o",
        max_length=200,
        examples=["openai/gpt-4o"],
    ),
]
Wait = Annotated[
    int,
    Query(
        description="Seconds to wait until the answer differs from the one whose `ETag` is sent as "
        "`If-None-Match`; without that header, until calls may go",
        ge=0,
        le=WAIT_MOST_S,
        examples=[30],
    ),
]


@router.get(
    "/gate",
    summary="Check whether calls may go",
    response_model=GateAnswer,
    responses={
        304: KEPT[304],
        **documented(404, 422, 429, 503),
        200: {"headers": {"ETag": {"description": "Send it back as If-None-Match", "schema": {"type": "string"}}}},
    },
)
async def gate(request: Request, model: Model = "", wait: Wait = 0, scope: Scope = None) -> Response:
    """200 while calls may go; 503 with `Retry-After` while the breaker is not closed, or the account is rate limited.

    While Redis is away, calls may go, as in the worker library, unless a known deadline has not passed. With `wait`
    the answer comes as soon as it differs from the client's, and after that time at the latest.
    """
    service = of_scope(request, scope)
    if wait:
        try:
            await _hold(request, service, model, wait)
        except TooManyClients:
            return problem(request, 429, f"{FULL}; ask without wait", {"Retry-After": str(RETRY_S)})
    return _verdict(request, service, model)


def _verdict(request: Request, service: Service, model: str) -> Response:
    view, policy = service.view, service.settings.policy
    verdict, headers = decide(view, policy, model), {"ETag": etag(fingerprint(view, policy, model))}
    if not verdict.permits:
        detail = f"Calls to OpenRouter are paused ({verdict.reason})"
        headers |= refusal_headers(verdict.retry_after_s, verdict.reason)
        return problem(request, 503, detail, headers, reason=verdict.reason)
    if has(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    body = GateAnswer(
        permitted=True,
        ramp=ramp(view, policy),
        epoch=view.record.epoch if view.record else 0,
        degraded=view.is_degraded,
        scope=service.settings.scope,
    )
    return Response(body.model_dump_json(), headers=headers, media_type=JSON)


async def _hold(request: Request, service: Service, model: str, wait_s: float) -> None:
    """Hold the request while the client has the current answer; without ``If-None-Match``, while calls may not go."""
    policy, knows = service.settings.policy, "if-none-match" in request.headers
    began_at = time.monotonic()

    def goes_on() -> float:
        view = service.view
        verdict = decide(view, policy, model)
        is_same = has(request, etag(fingerprint(view, policy, model))) if knows else not verdict.permits
        return (verdict.retry_after_s or math.inf) if is_same else 0.0

    if goes_on():
        with service.open_requests.one():
            await service.open_requests.wait(goes_on, service.cache.news, request.receive, wait_s)
    waited(request.scope, time.monotonic() - began_at)


@pictures.get(
    "/badge",
    summary="Get the state as a picture",
    response_class=Response,
    responses={
        **KEPT,
        **documented(404, 422),
        200: {**KEPT[200], "description": "An SVG", "content": {_SVG: {"schema": {"type": "string"}}}},
    },
)
async def badge(request: Request, scope: Scope = None) -> Response:
    """An SVG for a README or a dashboard; clients may cache it for half a minute."""
    service = of_scope(request, scope)
    words, colour = badges.words(service.view)
    svg = badges.svg("OpenRouter", words, colour).encode()
    return answer(request, svg, _SVG, cache_control=f"max-age={badges.KEEP_S}")


router.include_router(pictures)
