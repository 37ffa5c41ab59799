"""What an exception of a client library says about the upstream.

Nothing is imported to find out: exceptions of httpx, requests, aiohttp, the ``openai`` and the ``openrouter`` SDK
are known by what they carry (a status, headers, a body) and by the names of their classes.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

from openrouter_guard.rules.signals import NEUTRAL, SUCCESS, Effect, ErrorType, Signal, of_status
from openrouter_guard.rules.words import status_of

__all__ = ["UNREADABLE", "of_answer", "of_exception"]

UNREADABLE = Signal(Effect.FAILURE, ErrorType.UNKNOWN_ERROR, "the answer is not what the API documents")
"""Something answered, and it was not the API: a page, a redirect, half a body."""

_TIMEOUTS = frozenset({"TimeoutException", "APITimeoutError", "Timeout", "ReadTimeout", "ServerTimeoutError"})
_NETWORK = frozenset(
    {
        "TransportError",
        "APIConnectionError",
        "ClientConnectionError",
        "NoResponseError",
        "ChunkedEncodingError",
        # These names are others' too: a Redis client's ConnectionError is not the upstream's.
        "requests.ConnectionError",
        "socket.gaierror",
        "urllib.URLError",
    }
)
_OWN = frozenset({"PoolTimeout"})
"""The caller's own pool of connections was full."""
_IN_STREAM = frozenset({"openai.APIError"})
"""It comes without a status for an error inside a stream that had begun well."""
_BODY_BYTES = 65_536


def of_exception(error: BaseException | None) -> Signal:
    """The signal in what a guarded block raised; None is a success, the caller's own mistakes are neutral."""
    if error is None:
        return SUCCESS
    if isinstance(error, asyncio.CancelledError) or not isinstance(error, Exception):
        return NEUTRAL
    names = _names(error)
    status = _status(error)
    if status is None and names & _IN_STREAM and _error(_body(error)):
        status = 200
    if status is not None:
        return _refused(status, error)
    if names & _OWN:
        return NEUTRAL
    if isinstance(error, TimeoutError) or names & _TIMEOUTS:
        return Signal(Effect.FAILURE, ErrorType.TIMEOUT, type(error).__name__)
    if isinstance(error, ConnectionError) or names & _NETWORK:
        return Signal(Effect.FAILURE, ErrorType.NETWORK_ERROR, type(error).__name__)
    return NEUTRAL


def of_answer(status_code: int, *, body: object = None, headers: Mapping[str, str] | None = None) -> Signal:
    """The signal in an answer; a 200 whose body carries ``error`` is that error.

    Args:
        status_code: Of the HTTP answer.
        body: As parsed from JSON, or its text.
        headers: Of the answer, any case.

    A redirect says nothing: whoever follows it will know.
    """
    error = _error(body)
    if status_code < 400 and error:
        status_code = status_of(error)
    if 300 <= status_code < 400:
        return NEUTRAL
    lower = {name.lower(): value for name, value in (headers or {}).items()}
    return of_status(status_code, error=error, headers=lower, now_s=time.time())


def _refused(status: int, error: Exception) -> Signal:
    """The signal in an answer that a client would not take; never a success."""
    body = _body(error)
    if status >= 400 or _error(body):
        return of_answer(status, body=body, headers=_headers(error))
    # A body that can be read may be one that the client is too old for: no reason to stop a fleet.
    return NEUTRAL if status < 300 and _parsed(body) is not None else UNREADABLE


def _names(error: Exception) -> set[str]:
    """The names of its classes, alone and with the package that they come from."""
    kinds = type(error).__mro__
    return {name for kind in kinds for name in (kind.__name__, f"{_package(kind)}.{kind.__name__}")}


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _status(error: Exception) -> int | None:
    carriers = (error, getattr(error, "response", None), getattr(error, "raw_response", None))
    found = (getattr(carrier, name, None) for carrier in carriers for name in ("status_code", "status"))
    return next((status for status in found if isinstance(status, int)), None)


def _headers(error: Exception) -> Mapping[str, str]:
    for carrier in (error, getattr(error, "response", None), getattr(error, "raw_response", None)):
        headers = getattr(carrier, "headers", None)
        if headers is not None and hasattr(headers, "items"):
            return dict(headers.items())
    return {}


def _body(error: Exception) -> object:
    body = getattr(error, "body", None)
    if body is None:
        try:
            # httpx raises here for a stream that was not read: then there is no body to look at.
            body = getattr(getattr(error, "response", None), "text", None)
        except Exception:  # noqa: BLE001  whatever a foreign object raises, the status alone must do
            return None
    return body


def _error(body: object) -> Mapping[str, Any]:
    """The object under ``error``; the ``openai`` SDK hands out what is under it, without the wrapper."""
    body = _parsed(body)
    if not isinstance(body, Mapping):
        return {}
    inner = body.get("error", body if "message" in body and "code" in body else None)
    if isinstance(inner, str) and inner:
        return {"message": inner}
    return inner if isinstance(inner, Mapping) else {}


def _parsed(body: object) -> object:
    """What the JSON in a text says; None if it is none."""
    if not isinstance(body, str | bytes):
        return body
    try:
        return json.loads(body[:_BODY_BYTES])
    except ValueError:
        return None
