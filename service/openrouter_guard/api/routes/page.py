"""The pages for people, and their files. Errors there are pages too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http import HTTPStatus

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from openrouter_guard.api.http.problems import problem
from openrouter_guard.api.page import FILES, beside, document_file, load_page, render, render_docs, render_error
from openrouter_guard.api.scope.scopes import Scopes
from openrouter_guard.api.scope.service import Service

from .common import UnknownParameters, of_app, unknown_parameters, unknown_scope

__all__ = ["router"]

router = APIRouter(include_in_schema=False)

_KEPT_S = 300
_PIECE_BYTES = 16 * 1024
_HTML = "text/html; charset=utf-8"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Swagger UI has its pictures in its style sheet, and sets styles in the page.
_DOCS_POLICY = _POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'").replace(
    "img-src 'self'", "img-src 'self' data:"
)


@router.get("/")
async def page(request: Request) -> Response:
    """Show the state of ``?scope=``, which is read here so that an error in it is shown as a page."""
    mistyped = unknown_parameters(request, {"scope"}, lenient=True)
    if mistyped:
        return _error(request, 422, UnknownParameters(mistyped).detail)
    scopes = of_app(request)
    service = scopes.find(request.query_params.get("scope"))
    if service is None:
        return _error(request, 404, unknown_scope(scopes))
    return _page(await _rendered(service, scopes))


async def _rendered(service: Service, scopes: Scopes) -> str:
    """Render the page once a second, and again when a scope on it has changed: a flood of requests costs no more."""

    async def rendered() -> str:
        return render(await load_page(service), await beside(scopes))

    html, _ = await service.recent.get("rendered page", tuple(each.version for each in scopes), rendered)
    return html


@router.get("/docs")
async def docs(request: Request) -> Response:
    return _page(render_docs(request.app.title), policy=_DOCS_POLICY)


@router.get("/page/{path:path}")
async def file(request: Request, path: str) -> Response:
    found = FILES.get(path) or document_file(path)
    if found is None:
        return problem(request, 404, "The status page has no such file")
    headers = {"Cache-Control": f"public, max-age={_KEPT_S}"}
    if len(found.body) <= _PIECE_BYTES:
        return Response(found.body, media_type=found.media_type, headers=headers)
    headers["Content-Length"] = str(len(found.body))
    return StreamingResponse(_pieces(found.body), media_type=found.media_type, headers=headers)


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    """Wait for the client after each piece: many slow clients hold no more memory than that."""
    for at in range(0, len(body), _PIECE_BYTES):
        yield body[at : at + _PIECE_BYTES]


def _error(request: Request, status_code: int, detail: str) -> Response:
    body = render_error(HTTPStatus(status_code).phrase, detail, of_app(request).names)
    return _page(body, status_code)


def _page(body: str, status_code: int = 200, policy: str = _POLICY) -> Response:
    return Response(body, status_code, media_type=_HTML, headers={"Content-Security-Policy": policy})
