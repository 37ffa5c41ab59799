"""Every error answer, as a problem document of RFC 9457."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route

from openrouter_guard.api.schemas.status import Problem
from openrouter_guard.errors import OpenRouterGuardError, StoreContended, StoreError, StoreUnavailable

from .middleware import SECURITY_HEADERS, UNLESS_SET

__all__ = ["UnknownParameters", "UnknownScope", "documented", "install", "problem"]

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
_RETRY_S = 1
LOG_AGAIN_S = 60.0
_TOLD_KEPT = 100
_NAME = re.compile(r"[A-Za-z][A-Za-z_-]{0,30}")
_HINTS = {
    404: "There is nothing at this address; /docs lists all addresses",
    405: "This address does not accept that method; the Allow header lists the accepted ones",
}


class UnknownScope(OpenRouterGuardError):
    """The requested scope does not belong to this service."""


class UnknownParameters(OpenRouterGuardError):
    """Query parameters that the address does not have.

    Attributes:
        meant: For each name the most likely intended one, or nothing.
    """

    def __init__(self, meant: Mapping[str, str]) -> None:
        super().__init__("unknown parameters")
        self.meant = meant

    @property
    def detail(self) -> str:
        return "; ".join(
            f"There is no parameter {_shown(name)!r}{_hint(meant)}" for name, meant in self.meant.items()
        )

    @property
    def errors(self) -> list[dict[str, str]]:
        return [
            {"in": "query", "name": _shown(name), "detail": f"There is no such parameter{_hint(meant)}"}
            for name, meant in self.meant.items()
        ]


def _shown(name: str) -> str:
    """Return a name as it may be shown: it comes from the client, and might be a key in the wrong place."""
    return name if _NAME.fullmatch(name) else "…"


def _hint(meant: str) -> str:
    return f": did you mean {meant!r}?" if meant else ""


def install(app: FastAPI, routes: Iterable[BaseRoute]) -> None:
    """Answer every error of *app*, whose addresses are *routes*, with a problem document."""
    app.state.told = {}
    app.state.routes = [route for route in routes if isinstance(route, Route)]
    for kind in (HTTPException, RequestValidationError, UnknownParameters, UnknownScope, StoreError, Exception):
        app.add_exception_handler(kind, _answer)


def problem(
    request: Request, status_code: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any
) -> Response:
    """Create an error answer; *detail* describes the problem and its solution."""
    title = HTTPStatus(status_code).phrase
    body = Problem(title=title, status=status_code, detail=detail, instance=request.scope["path"], **more)
    return Response(body.model_dump_json(by_alias=True, exclude_none=True), status_code, headers, MEDIA_TYPE)


def documented(*status_codes: int) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a route that may end in these problems."""
    content = {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}}
    return {code: {"description": HTTPStatus(code).phrase, "content": content} for code in status_codes}


async def _answer(request: Request, error: Exception) -> Response:
    match error:
        case HTTPException():
            detail = _HINTS.get(error.status_code, str(error.detail))
            allow = {"Allow": _methods(error, request)} if error.status_code == 405 else {}
            return problem(request, error.status_code, detail, {**(error.headers or {}), **allow})
        case RequestValidationError():
            errors = [_of_parameter(found) for found in error.errors()]
            what = "The body" if any(each["in"] == "body" for each in errors) else "A parameter"
            return problem(request, 422, f"{what} cannot be used", errors=errors)
        case UnknownParameters():
            return problem(request, 422, error.detail, errors=error.errors)
        case UnknownScope():
            return problem(request, 404, str(error))
        case StoreError():
            if not isinstance(error, StoreUnavailable):
                _log(request, str(error))
            return problem(request, 503, _why(error), {"Retry-After": str(_RETRY_S)})
        case _:
            # The server logs it. No middleware wraps this answer, so it sets the headers itself.
            return problem(request, 500, "Internal error; see the service's log", dict(SECURITY_HEADERS + UNLESS_SET))


def _log(request: Request, error: str) -> None:
    """Log it once a minute. Other parts log that Redis is away, but this error may be visible only here."""
    told: dict[str, float] = request.app.state.told
    now = time.monotonic()
    if now - told.get(error, -LOG_AGAIN_S) >= LOG_AGAIN_S:
        if len(told) >= _TOLD_KEPT:
            told.clear()
        told[error] = now
        logger.warning("Redis answers, but a request failed: %s", error)


def _why(error: StoreError) -> str:
    match error:
        case StoreUnavailable():
            return "Redis is not reachable"
        case StoreContended():
            return "The shared state changes faster than it can be written; try again"
        case _:
            return "Redis refuses the command; see the service's log"


def _methods(error: HTTPException, request: Request) -> str:
    """Return all methods of the address; the router names those of one route only, and does not know HEAD."""
    methods = set(filter(None, (error.headers or {}).get("Allow", "").split(", ")))
    for route in request.app.state.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            methods |= route.methods
    return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))


def _of_parameter(error: Mapping[str, Any]) -> dict[str, str]:
    """Describe what is wrong with one parameter, without its value."""
    where, *name = error["loc"]
    return {
        "in": str(where),
        "name": ".".join(map(str, name)),
        "detail": str(error["msg"]).removeprefix("Value error, "),
    }
