"""The simulated OpenRouter as an ASGI app: the API below ``/api/v1``, its control at ``/simulate``."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from openrouter_guard.errors import ConfigurationError

from .answers import CHAT, CREDITS, KEY, MODELS
from .failures import Call, good, refused, until_gone
from .modes import HEALTHY, MODES, setting

__all__ = ["SimulatedOpenRouter"]

BASE_PATH = "/api/v1"
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_ENDPOINTS: Mapping[tuple[str, str], str] = {
    ("GET", "/key"): KEY,
    ("GET", "/auth/key"): KEY,
    ("GET", "/credits"): CREDITS,
    ("GET", "/models"): MODELS,
    ("POST", "/chat/completions"): CHAT,
}


class Switch(BaseModel):
    """The body of ``PUT /simulate``: the arguments of :meth:`SimulatedOpenRouter.switch`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    mode: str
    paths: list[str] | None = None
    delay_s: float | None = None
    retry_after_s: float | None = None


class SimulatedOpenRouter:
    """An ASGI app that answers as OpenRouter does, and fails on demand.

    In the process, through ``httpx.ASGITransport(app=simulated)``, or as a server, with ``running(simulated)``. Any
    bearer token is a good key; one that contains ``management`` is a management key, which ``/credits`` needs.

    ``GET /simulate`` shows the mode, the requests so far and all modes. ``PUT /simulate`` with
    ``{"mode": "outage"}`` switches, and takes the other arguments of :meth:`switch` too.
    """

    def __init__(self) -> None:
        self._setting = HEALTHY
        self._requests: Counter[str] = Counter()
        self._app = Starlette(
            routes=[
                Route("/simulate", self._show, methods=["GET"]),
                Route("/simulate", self._control, methods=["PUT"]),
                Route(BASE_PATH + "{path:path}", self._answer, methods=_METHODS),
            ]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    @property
    def mode(self) -> str:
        """The name of the present mode."""
        return self._setting.mode.name

    @property
    def requests(self) -> Mapping[str, int]:
        """Number of requests by path below ``/api/v1``; a copy."""
        return dict(self._requests)

    def switch(
        self,
        mode: str,
        *,
        paths: Collection[str] | None = None,
        delay_s: float | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """Switch the mode from the next request on; may be called from any thread.

        Args:
            mode: A name in ``MODES``.
            paths: Affected paths, such as ``["/chat/completions"]``; by default those of the mode.
            delay_s: Duration of an answer.
            retry_after_s: The wait in an answer, if the mode can contain it.

        Raises:
            ConfigurationError: If there is no such mode or path, or a value cannot be used.
        """
        self._setting = setting(mode, paths, delay_s, retry_after_s)

    async def _answer(self, request: Request) -> Response:
        path = request.path_params["path"]
        self._requests[path] += 1
        endpoint = _ENDPOINTS.get((request.method, path))
        if endpoint is None:
            return refused(404, f"The simulated OpenRouter has no {request.method} {path}", error_type="not_found")
        key = _key(request)
        if not key:
            return refused(401, "No auth credentials found", error_type="authentication")
        content = _content(await request.body(), endpoint)
        if content is None:
            return refused(400, "The body is not a JSON object with 'messages'", error_type="invalid_request")
        return await self._behave(request, endpoint, content, is_management_key="management" in key)

    async def _behave(
        self, request: Request, path: str, content: Mapping[str, Any], *, is_management_key: bool
    ) -> Response:
        current = self._setting
        call = Call(path, content, is_management_key, time.time(), current.retry_after_s)
        if path not in current.paths:
            return good(call)
        if current.delay_s:
            with suppress(TimeoutError):
                async with asyncio.timeout(current.delay_s):
                    await until_gone(request.receive)
        return current.mode.answer(call)

    async def _show(self, _request: Request) -> Response:
        modes = {mode.name: mode.description for mode in MODES.values()}
        return JSONResponse(self._current() | {"modes": modes})

    async def _control(self, request: Request) -> Response:
        try:
            wanted = Switch.model_validate_json(await request.body())
            self.switch(**wanted.model_dump())
        except ValidationError as invalid:
            return _problem(_first(invalid))
        except ConfigurationError as error:
            return _problem(str(error))
        return JSONResponse(self._current())

    def _current(self) -> dict[str, Any]:
        current = self._setting
        return {
            "mode": current.mode.name,
            "paths": current.paths,
            "delay_s": current.delay_s,
            "retry_after_s": current.retry_after_s,
            "requests": self.requests,
        }


def _key(request: Request) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _content(sent: bytes, endpoint: str) -> Mapping[str, Any] | None:
    """Return the JSON body of a request: nothing for a GET, None for an invalid one."""
    if endpoint != CHAT:
        return {}
    try:
        content = from_json(sent)
    except ValueError:
        return None
    is_usable = isinstance(content, dict) and isinstance(content.get("messages"), list) and content["messages"]
    return content if is_usable else None


def _problem(detail: str) -> Response:
    """Return a problem document of RFC 9457 that lists the choices."""
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    body = {"type": "about:blank", "title": status.phrase, "status": status, "detail": detail, "modes": list(MODES)}
    return JSONResponse(body, status, media_type="application/problem+json")


def _first(invalid: ValidationError) -> str:
    error = invalid.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(map(str, error["loc"])) or "the body"
    return f'{where}: {error["msg"]}; send a JSON object such as {{"mode": "outage"}}'
