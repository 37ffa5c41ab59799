"""What an exception or a response of a client library carries: a status, headers, a body.

Nothing here does I/O, whatever the library: only what was read already is looked at. Nothing raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from types import MemberDescriptorType
from typing import Any

from openrouter_guard.errors import REFUSAL_HEADER
from openrouter_guard.rules.parsing import json_of, text_of
from openrouter_guard.rules.waits import TOLD
from openrouter_guard.rules.words import known_status

from .causes import attribute, package
from .search import ErrorSearch

__all__ = ["body_of", "error_in", "headers_in", "headers_of", "http_status", "parsed", "searched", "status_of"]

WHOLE_BYTES = 65_536
"""A larger body is searched for its error, and not parsed."""
SEARCHED_BYTES = 16_777_216
_STORED = ("_content", "_body", "content", "body", "text", "data")
"""Where responses keep what was read of them: httpx and requests, urllib3 and aiohttp, and others."""
_TELLING = frozenset({*TOLD, REFUSAL_HEADER})
_STATUS = re.compile(r"[1-5][0-9]{2}")
_HEADERS_MOST = 500
_CHOICES_MOST = 16
_ENDED_IN_ERROR: Mapping[str, Any] = {"message": "the answer ended in an error"}


def http_status(raw: object) -> int | None:
    """An HTTP status, or the text of one; None for any other value."""
    if isinstance(raw, bool):
        return None
    if isinstance(raw, int):
        return int(raw) if 100 <= raw <= 599 else None
    return int(raw) if isinstance(raw, str) and _STATUS.fullmatch(raw) else None


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an exception carries, itself or in its response.

    A ``status`` of its own counts only beside what an HTTP answer has: databases have numbers of that name.
    """
    for carrier in _carriers(error):
        names = ["status_code", "status"] if carrier is not error or _is_of_http(error) else ["status_code"]
        for name in names:
            found = http_status(attribute(carrier, name))
            if found is not None:
                return found
    return None


def headers_of(error: BaseException) -> dict[str, str]:
    """The headers that matter: the first of each name, wherever they are kept."""
    found: dict[str, str] = {}
    kept = [attribute(error, "litellm_response_headers"), *(attribute(each, "headers") for each in _carriers(error))]
    for headers in kept:
        found = {**headers_in(headers), **found}
    return found


def headers_in(raw: object) -> dict[str, str]:
    """Those of *raw* that tell times, or that a guard refused, by lower-case names.

    Args:
        raw: A mapping, or pairs; of text or of bytes.
    """
    try:
        named = ((text_of(pair[0], 64).strip().lower(), pair[1]) for pair in islice(_pairs(raw), _HEADERS_MOST))
        return {name: value for name, raw in named if name in _TELLING and (value := _header(raw))}
    except Exception:  # noqa: BLE001  they are somebody else's objects, and no reason to lose the status
        return {}


def body_of(error: BaseException) -> object:
    """The body of the answer: parsed, as text, or as bytes; None where it was not read."""
    for carrier in _carriers(error):
        body = attribute(carrier, "body") if carrier is error else _stored(carrier)
        if body is not None and not (isinstance(body, str | bytes | bytearray) and not body):
            return body
    if package(type(error)) == "litellm":
        # It hides the body, and puts its text behind a few words of its own.
        text = text_of(attribute(error, "message") or str(error), WHOLE_BYTES)
        return searched(text[max(text.find("{"), 0) :].encode())
    return _of_value_error(error)


def parsed(body: object) -> object:
    """What the JSON in a text says; None if it is none. Other values are what they are."""
    if isinstance(body, str):
        body = body[:SEARCHED_BYTES].encode(errors="replace")
    if isinstance(body, bytearray | memoryview):
        body = bytes(body[:SEARCHED_BYTES])
    if not isinstance(body, bytes):
        return body
    text = body.removeprefix(b"\xef\xbb\xbf").strip()
    if len(text) > WHOLE_BYTES:
        return searched(text)
    found = json_of(text)
    # What is no JSON may be the beginning of it.
    return (searched(text) or None) if found is None else found


def error_in(body: object, *, is_refusal: bool = False) -> Mapping[str, Any]:
    """The error that a body carries: at its top, or in one of its choices; empty if it carries none.

    Args:
        body: As :func:`parsed` gives it; an SDK's object for an answer is taken too.
        is_refusal: The status says that it is an error: then the body may be what is else under ``error``, as the
            ``openai`` SDK hands it out.
    """
    if isinstance(body, list | tuple):
        body = body[0] if body else None
    if body is None or isinstance(body, str | bytes | int | float):
        return {}
    return _error(_field(body, "error")) or _bare(body, is_refusal=is_refusal) or _of_choices(_field(body, "choices"))


def _carriers(error: BaseException) -> Iterator[Any]:
    yield error
    for name in ("response", "raw_response"):
        carrier = attribute(error, name)
        if carrier is not None:
            yield carrier


def _is_of_http(error: BaseException) -> bool:
    return any(attribute(error, name) is not None for name in ("headers", "request_info", "response", "raw_response"))


def _pairs(raw: Any) -> Iterable[tuple[Any, Any]]:
    if raw is None:
        return ()
    items = attribute(raw, "items")
    return items() if callable(items) else raw  # type: ignore[no-any-return]


def _header(raw: object) -> str:
    value = raw[0] if isinstance(raw, list | tuple) and raw else raw
    return text_of(value, 100).strip()


def _stored(response: object) -> object:
    """What was read of a response, without reading any more of it: its properties may do that."""
    held = attribute(response, "__dict__")
    for name in _STORED:
        value = held.get(name) if isinstance(held, dict) else None
        if value is None and isinstance(attribute(type(response), name), MemberDescriptorType):
            value = attribute(response, name)
        if isinstance(value, str | bytes | bytearray | Mapping) and value:
            return value
    return None


def _of_value_error(error: BaseException) -> object:
    """``ValueError({'message': …, 'code': 502})``: langchain's form of an error inside a 200."""
    arguments = attribute(error, "args")
    if type(error) is not ValueError or not isinstance(arguments, tuple) or len(arguments) != 1:
        return None
    said = arguments[0]
    return said if isinstance(said, Mapping) and _bare(said.get("error") or said, is_refusal=False) else None


def searched(text: bytes) -> object:
    """Of JSON that is too long to be parsed, or cut: the error in it, as a body; else ``{}``, None if it is cut."""
    search = ErrorSearch()
    search.feed(text[:SEARCHED_BYTES])
    return search.end() or ({} if search.is_whole else None)


def _field(thing: object, name: str) -> Any:
    return thing.get(name) if isinstance(thing, Mapping) else attribute(thing, name)


def _error(value: object) -> Mapping[str, Any]:
    """What stands under ``error``, in the form that the API documents."""
    if isinstance(value, list | tuple):
        value = value[0] if value else None
    if isinstance(value, str) and value.lstrip().startswith("{"):
        value = json_of(value) or value
    match value:
        case Mapping():
            return value
        case str() if value:
            return {"message": value}
        case bool():
            return {"message": ""} if value else {}
        case int() | float() if value:
            return {"code": value, "message": ""}
        case None | str() | bytes() | int() | float():
            return {}
        case _:
            known = {name: attribute(value, name) for name in ("code", "message", "metadata", "type")}
            return known if isinstance(known["message"], str) else {}


def _bare(body: object, *, is_refusal: bool) -> Mapping[str, Any]:
    if not isinstance(body, Mapping) or "message" not in body:
        return {}
    if is_refusal:
        return body if "code" in body or "metadata" in body else {}
    return body if "code" in body and known_status(body) else {}


def _of_choices(choices: object) -> Mapping[str, Any]:
    if not isinstance(choices, list | tuple):
        return {}
    for choice in choices[:_CHOICES_MOST]:
        found = _error(_field(choice, "error"))
        if found or _field(choice, "finish_reason") == "error":
            return found or _ENDED_IN_ERROR
    return {}
