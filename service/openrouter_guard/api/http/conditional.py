"""Conditional answers: ETag and 304, and headers with their age and source."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from fastapi import Request
from fastapi.responses import Response

__all__ = ["JSON", "KEPT", "XCache", "answer", "etag", "has", "json_answer", "without"]

JSON = "application/json"
REVALIDATE = "no-cache"
"""Clients may cache the answer but must revalidate it.

A breaker opens within milliseconds, however fresh an answer looks.
"""


KEPT: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            "ETag": {"description": "Send it back as If-None-Match", "schema": {"type": "string"}},
            "Cache-Control": {
                "description": "How long the client may cache the answer",
                "schema": {"type": "string"},
            },
        }
    },
    304: {"description": "The client's copy is still valid"},
}
"""The part of the OpenAPI document that describes these answers."""


class XCache(StrEnum):
    """The values of ``X-Cache``."""

    HIT = "HIT"
    """From this process' memory, and fresh."""
    STALE = "STALE"
    """From memory, older than the fresh threshold, or last read before Redis went away."""
    MISS = "MISS"
    """Fetched for this request."""


def json_answer(request: Request, body: str, *, stable: str | None = None, **headers: str | int | None) -> Response:
    """Send a body of JSON text, unless the client has it already.

    The ETag covers *stable* if given, else the whole body: a growing age alone is not a change. Write underscores for
    dashes in the names of headers; headers that are None are left out.
    """
    return _answer(request, body.encode(), JSON, (body if stable is None else stable).encode(), REVALIDATE, headers)


def answer(request: Request, body: bytes, media_type: str, *, cache_control: str) -> Response:
    """Send a body, unless the client has it already."""
    return _answer(request, body, media_type, body, cache_control, {})


def etag(content: bytes) -> str:
    """Return the same tag for the same content in every replica.

    It is weak, because a proxy may compress the body.
    """
    return f'W/"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'


def without(body: str, name: str) -> str:
    """Return JSON text without the first member *name*, whose value is a number or null.

    Works on the text, because it runs for each status request. Quotes inside a string are escaped, so the pattern
    only matches a name.
    """
    before, found, after = body.partition(f'"{name}":')
    return before + after.partition(",")[2] if found else body


def _answer(
    request: Request,
    body: bytes,
    media_type: str,
    stable: bytes,
    cache_control: str,
    headers: Mapping[str, str | int | None],
) -> Response:
    tag = etag(stable)
    sent = {"ETag": tag, "Cache-Control": cache_control, **_named(headers)}
    if has(request, tag):
        return Response(status_code=304, headers=sent)
    return Response(body, headers=sent, media_type=media_type)


def has(request: Request, tag: str) -> bool:
    """Return whether the client's ``If-None-Match`` includes *tag*."""
    if_none_match = request.headers.get("if-none-match")
    if if_none_match is None:
        return False
    known = {each.strip().removeprefix("W/") for each in if_none_match.split(",")}
    return "*" in known or tag.removeprefix("W/") in known


def _named(headers: Mapping[str, str | int | None]) -> dict[str, str]:
    return {name.replace("_", "-"): str(value) for name, value in headers.items() if value is not None}
