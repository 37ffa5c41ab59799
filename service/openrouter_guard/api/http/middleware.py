"""Middleware for every answer: headers, request metrics, and HEAD wherever there is GET."""

from __future__ import annotations

import time
from collections.abc import Iterable
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openrouter_guard.api.telemetry.registry import Telemetry

__all__ = ["SECURITY_HEADERS", "UNLESS_SET", "ResponseMiddleware", "is_head", "waited"]

SECURITY_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
)
UNLESS_SET = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
)
_RAW = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS]
_RAW_UNLESS_SET = [(name.lower().encode(), value.encode()) for name, value in UNLESS_SET]
_ASCII = bytes(range(128))
_IS_HEAD = "openrouter_guard.is_head"
_WAITED_S = "openrouter_guard.waited_s"


def is_head(scope: Scope) -> bool:
    """Return whether the request is HEAD; the routes see it as GET."""
    return bool(scope.get(_IS_HEAD))


def waited(scope: Scope, seconds: float) -> None:
    """Note that an answer waited this long at its client's request, so that it does not count as latency."""
    scope[_WAITED_S] = seconds


class ResponseMiddleware:
    """ASGI middleware; Starlette's own class for it would double the time of an answer."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_at, has_begun = time.perf_counter(), False
        if not scope["query_string"].isascii():
            # Starlette would fail at it when it builds an address.
            scope = {**scope, "query_string": quote(scope["query_string"], safe=_ASCII).encode()}
        if wants_head := scope["method"] == "HEAD":
            scope = {**scope, "method": "GET", _IS_HEAD: True}

        async def send_with_headers(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                # Not at the end: a stream ends after hours, and every other answer is sent as a whole.
                took_s = time.perf_counter() - began_at - scope.get(_WAITED_S, 0.0)
                self._telemetry.requested(_route(scope), message["status"], took_s)
                message["headers"] = _with_ours(message.get("headers", ()))
            elif wants_head:
                message["body"] = b""
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        finally:
            if not has_begun:
                self._telemetry.requested(_route(scope), 500, time.perf_counter() - began_at)


def _with_ours(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    names = {name for name, _ in headers}
    return [*headers, *_RAW, *(each for each in _RAW_UNLESS_SET if each[0] not in names)]


def _route(scope: Scope) -> str:
    """Return the path as declared: a path made up by a client must not become a label."""
    return getattr(scope.get("route"), "path", "unmatched")
