"""Shared parts of the routes that write: the check of the token, and the limit of a body."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ClassVar

from fastapi import Request
from fastapi.exceptions import HTTPException
from fastapi.responses import Response
from starlette.types import Message

from openrouter_guard.api.http.auth import Access
from openrouter_guard.api.http.conditional import JSON
from openrouter_guard.api.scope.service import Service
from openrouter_guard.api.status.answer import status_answer

from .common import Route, of_app

__all__ = ["OF_REPORTERS", "OF_WRITERS", "ForReporters", "ForWriters", "breaker", "wait_s"]

BODY_MAX_BYTES = 1_048_576
OF_WRITERS: dict[str, Any] = {"security": [{"writeToken": []}]}
OF_REPORTERS: dict[str, Any] = {"security": [{"reportToken": []}, {"writeToken": []}]}


class ForWriters(Route):
    """Checks the token before it reads the body, and reads no more than the limit."""

    is_for_reporters: ClassVar[bool] = False

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def checked(request: Request) -> Response:
            await self._let_in(request)
            if _has_body(request) and not _is_json(request.headers.get("content-type", "")):
                raise HTTPException(415, "Send JSON, with 'Content-Type: application/json'")
            return await handle(Request(request.scope, _bounded(request.receive)))

        return checked

    async def _let_in(self, request: Request) -> None:
        access: Access = request.app.state.access
        if self.is_for_reporters:
            await access.know(request.headers.get("authorization", ""))
            access.require_report(
                request, request.query_params.get("scope") or of_app(request).default.settings.scope
            )
        else:
            access.require_write(request)


class ForReporters(ForWriters):
    """Also admits tokens that may only report and take permits."""

    is_for_reporters = True


def breaker(service: Service) -> Any:
    return status_answer(service.view, service.settings, is_live=False).circuit_breaker


def wait_s(service: Service) -> float | None:
    """Return how long calls must wait, in seconds; None while they may go."""
    refused = service.refusal
    return refused and round(refused.retry_after_s, 3)


def _has_body(request: Request) -> bool:
    headers = request.headers
    return request.method == "POST" or headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


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
