"""The status page for people, and the files that it loads."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from openrouter_guard.api.page import FILES, beside, gather, render
from openrouter_guard.api.problems import problem

from .common import Scope, of_app, of_scope

__all__ = ["router"]

router = APIRouter(include_in_schema=False)

_KEPT_S = 300
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@router.get("/")
async def page(request: Request, scope: Scope = None) -> Response:
    body = render(await gather(of_scope(request, scope)), await beside(of_app(request)))
    return Response(body, media_type="text/html; charset=utf-8", headers={"Content-Security-Policy": _POLICY})


@router.get("/page/{path:path}")
async def file(request: Request, path: str) -> Response:
    found = FILES.get(path)
    if found is None:
        return problem(request, 404, "The status page has no such file")
    headers = {"Cache-Control": f"public, max-age={_KEPT_S}"}
    return Response(found.body, media_type=found.media_type, headers=headers)
