"""Refusals of a connection, before or in place of the app's answer."""

from __future__ import annotations

import json
from http import HTTPStatus

from starlette.types import Receive, Scope, Send

from .middleware import SECURITY_HEADERS, UNLESS_SET

__all__ = ["busy", "refusal"]

_HEADERS = b"".join(f"{name}: {value}\r\n".lower().encode() for name, value in SECURITY_HEADERS + UNLESS_SET)
_BUSY = "Too many requests are being answered; try again"
_END = b"\r\n\r\n"


def refusal(status_code: int, detail: str) -> bytes:
    """Return the whole answer, after which the connection is closed."""
    title = HTTPStatus(status_code).phrase
    body = json.dumps(
        {"type": "about:blank", "title": title, "status": status_code, "detail": detail, "instance": "/"}
    ).encode()
    return b"".join(
        (
            f"HTTP/1.1 {status_code} {title}\r\ncontent-type: application/problem+json\r\n".encode(),
            f"content-length: {len(body)}\r\nconnection: close\r\n".encode(),
            _HEADERS,
            b"\r\n",
            body,
        )
    )


async def busy(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Ask to try again in a second: an ASGI app in place of the real one."""
    head, _, body = refusal(503, _BUSY).partition(_END)
    lines = (line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    headers = [(name, value) for name, value in lines]
    await send({"type": "http.response.start", "status": 503, "headers": [*headers, (b"retry-after", b"1")]})
    await send({"type": "http.response.body", "body": body})
