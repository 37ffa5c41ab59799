"""Ways of the simulated OpenRouter to answer: well, with an error, or with broken output."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from email.utils import formatdate
from typing import Any, TypeAlias

from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from openrouter_guard.rules.units import DAY_S

from .answers import CHAT, CREDITS, FREE_REQUESTS_A_DAY, PROVIDER, Account, body, chunk, error, stream

__all__ = [
    "Announce",
    "Answer",
    "Call",
    "ConnectionDropped",
    "as_date",
    "as_reset_time",
    "as_seconds",
    "bad_json",
    "dropped",
    "error_in_body",
    "error_in_stream",
    "failing",
    "free_daily_cap",
    "good",
    "hanging",
    "huge_body",
    "provider_rate_limited",
    "redirect",
    "refused",
    "spent",
    "until_gone",
    "wrong_types",
]

HUGE_BYTES = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Call:
    """One request, with the options of the present mode.

    Attributes:
        path: One of ``answers.PATHS``.
        request: Its JSON body; empty for a GET.
        now: Unix seconds.
        retry_after_s: The wait in the answer; None: it names none.
    """

    path: str
    request: Mapping[str, Any]
    is_management_key: bool
    now: float
    retry_after_s: float | None = None


Answer: TypeAlias = Callable[[Call], Response]
Announce: TypeAlias = Callable[[Call, float], Mapping[str, str]]


class ConnectionDropped(ConnectionResetError):
    """Breaks off a request in the middle of its answer.

    A client in the process sees the exception, others a closed connection.
    """


def good(call: Call, account: Account | None = None) -> Response:
    """The answer of a healthy OpenRouter."""
    if call.path == CREDITS and not call.is_management_key:
        return refused(403, "Only management keys can read credits (here: keys that contain 'management')")
    if call.path == CHAT and call.request.get("stream"):
        return StreamingResponse(stream(call.request), media_type="text/event-stream")
    return JSONResponse(_good_body(call, account))


def refused(code: int, message: str, headers: Mapping[str, str] | None = None, **metadata: Any) -> Response:
    """An error answer in OpenRouter's format."""
    return JSONResponse(error(code, message, metadata), code, headers)


def failing(code: int, message: str, error_type: str, announce: Announce, **metadata: str) -> Answer:
    """Always this error.

    Args:
        code: The HTTP status, repeated in the body.
        message: For people.
        error_type: OpenRouter's canonical name of the error.
        announce: Writes a wait into the headers.
        metadata: Metadata of the error.
    """

    def answer(call: Call) -> Response:
        headers = {} if call.retry_after_s is None else announce(call, call.retry_after_s)
        return refused(code, message, headers, error_type=error_type, **metadata)

    return answer


def as_seconds(_call: Call, wait_s: float) -> Mapping[str, str]:
    """``Retry-After`` in seconds."""
    return {"Retry-After": str(math.ceil(wait_s))}


def as_date(call: Call, wait_s: float) -> Mapping[str, str]:
    """``Retry-After`` as an HTTP date."""
    return {"Retry-After": formatdate(math.ceil(call.now + wait_s), usegmt=True)}


def as_reset_time(call: Call, wait_s: float) -> Mapping[str, str]:
    """``X-RateLimit-Reset`` in epoch milliseconds."""
    return _rate_limit(20, call.now + wait_s)


def _rate_limit(limit: int, reset_at: float) -> Mapping[str, str]:
    reset_ms = str(math.ceil(reset_at * 1000))
    return {"X-RateLimit-Limit": str(limit), "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset_ms}


def spent(account: Account, chat: Answer) -> Answer:
    """Paid calls fail; the other paths return the remaining credit."""

    def answer(call: Call) -> Response:
        return chat(call) if call.path == CHAT else good(call, account)

    return answer


def free_daily_cap(call: Call) -> Response:
    """No more ``:free`` models before midnight UTC; paid models work."""
    if call.path != CHAT or not str(call.request.get("model", "")).endswith(":free"):
        return good(call, Account(free_requests_used=FREE_REQUESTS_A_DAY))
    midnight = (call.now // DAY_S + 1) * DAY_S
    headers = _rate_limit(FREE_REQUESTS_A_DAY, midnight)
    message = "Rate limit exceeded: free-models-per-day"
    return refused(429, message, headers, error_type="rate_limit_exceeded")


def provider_rate_limited(call: Call) -> Response:
    """The pool of one provider behind one model is full: the wait is in the body."""
    wait = {} if call.retry_after_s is None else {"retry_after_seconds": call.retry_after_s}
    names = {"error_type": "rate_limit_exceeded", "provider_name": PROVIDER}
    return JSONResponse(error(429, "Provider returned error", {**names, **wait}), 429)


def error_in_body(_call: Call) -> Response:
    return JSONResponse(error(502, "Provider returned error", {"error_type": "provider_unavailable"}))


def error_in_stream(call: Call) -> Response:
    """A stream that begins well; other answers are good."""
    if call.path != CHAT or not call.request.get("stream"):
        return good(call)
    failed = error(502, "Provider disconnected", {"error_type": "provider_unavailable"})
    events = stream(call.request, end={**chunk(call.request, "", "error"), **failed})
    return StreamingResponse(events, media_type="text/event-stream")


def bad_json(call: Call) -> Response:
    """The first half of a good body."""
    whole = JSONResponse(_good_body(call)).body
    return Response(bytes(whole[: len(whole) // 2]), media_type="application/json")


def wrong_types(call: Call) -> Response:
    """A good body with a text where each number was."""
    return JSONResponse(_numbers_as_texts(_good_body(call)))


def huge_body(call: Call) -> Response:
    """A good body behind 10 MiB of white space."""
    return Response(b" " * HUGE_BYTES + bytes(JSONResponse(_good_body(call)).body), media_type="application/json")


def redirect(_call: Call) -> Response:
    return RedirectResponse("/login", 302)


def dropped(_call: Call) -> Response:
    return _Dropped()


def hanging(_call: Call) -> Response:
    return _Hanging()


def _good_body(call: Call, account: Account | None = None) -> dict[str, Any]:
    owner = replace(account or Account(), is_management_key=call.is_management_key)
    return body(call.path, call.request, owner)


def _numbers_as_texts(value: Any) -> Any:
    match value:
        case dict():
            return {name: _numbers_as_texts(inner) for name, inner in value.items()}
        case list():
            return [_numbers_as_texts(inner) for inner in value]
        case bool():
            return value
        case int() | float():
            return "n/a"
        case _:
            return value


class _Dropped(Response):
    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"1000")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"', "more_body": True})
        raise ConnectionDropped("the connection was dropped in the middle of the answer")


class _Hanging(Response):
    async def __call__(self, _scope: Scope, receive: Receive, _send: Send) -> None:
        await until_gone(receive)


async def until_gone(receive: Receive) -> None:
    """Return when the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
