"""Extracts the status, headers and body from an exception or a response of a client library.

Nothing here does I/O: only data that was read already is used. Nothing raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from types import MemberDescriptorType
from typing import Any

from openrouter_guard.errors import REFUSAL_HEADER
from openrouter_guard.rules.error_codes import known_status
from openrouter_guard.rules.parsing import text_of
from openrouter_guard.rules.waits import TOLD

from .bodies import WHOLE_BYTES, searched
from .causes import attribute, package
from .client_frames import read_by

__all__ = ["bodies_of", "headers_in", "headers_of", "http_status", "status_of"]

_STORED = ("_content", "_body", "content", "body", "text", "data")
"""Attributes in which responses keep the body that was read: httpx and requests, urllib3 and aiohttp, and others."""
_TELLING = frozenset({*TOLD, REFUSAL_HEADER, "content-type"})
_STATUS = re.compile(r"[1-5][0-9]{2}")
_HEADERS_MOST = 500
_VALUES_MOST = 8
_HEADER_LENGTH = 400


def http_status(raw: object) -> int | None:
    """Return an HTTP status, or the number in a text; None for any other value."""
    if isinstance(raw, bool):
        return None
    if isinstance(raw, int):
        return int(raw) if 100 <= raw <= 599 else None
    return int(raw) if isinstance(raw, str) and _STATUS.fullmatch(raw) else None


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of an exception, or of its response.

    An own ``status`` counts only beside other parts of an HTTP answer: database errors have one too.
    """
    for carrier in _carriers(error):
        names = ["status_code", "http_status", "status"][: 3 if carrier is not error or _is_of_http(error) else 2]
        if package(type(error)) == "tornado":
            names.append("code")
        for name in names:
            found = http_status(attribute(carrier, name))
            if found is not None:
                return found
    return None


def headers_of(error: BaseException) -> dict[str, str]:
    """Return the relevant headers: the first of each name, wherever they are kept."""
    found: dict[str, str] = {}
    kept = [attribute(error, "litellm_response_headers"), *(attribute(each, "headers") for each in _carriers(error))]
    for headers in kept:
        found = {**headers_in(headers), **found}
    return found


def headers_in(raw: object) -> dict[str, str]:
    """Return the headers of *raw* about times, the type of the body or a guard's refusal, by lower-case names.

    The values of a repeated name are joined by commas.

    Args:
        raw: A mapping, or pairs, of text or bytes.
    """
    try:
        named = [(text_of(pair[0], 64).strip().lower(), pair[1]) for pair in islice(_pairs(raw), _HEADERS_MOST)]
        told = [(name, text) for name, value in named if name in _TELLING and (text := _header(value))]
        return {name: ", ".join(text for other, text in told if other == name)[:_HEADER_LENGTH] for name, _ in told}
    except Exception:  # noqa: BLE001  they are somebody else's objects, and no reason to lose the status
        return {}


def bodies_of(error: BaseException) -> Iterator[object]:
    """Return the bodies of the answer from the exception and its response: parsed, as text, or as bytes."""
    for carrier in _carriers(error):
        body = _own_body(carrier) if carrier is error else _stored(carrier)
        if body is not None and not (isinstance(body, str | bytes | bytearray) and not body):
            yield body
    if package(type(error)) == "litellm":
        # It hides the body, and appends its text to a message of its own.
        text = text_of(attribute(error, "message") or str(error), WHOLE_BYTES)
        yield searched(text[max(text.find("{"), 0) :].encode())
    yield _of_value_error(error)


def _carriers(error: BaseException) -> Iterator[Any]:
    yield error
    carriers = [carrier for name in ("response", "raw_response") if (carrier := attribute(error, name)) is not None]
    yield from carriers
    read = None if carriers else read_by(error)
    if read is not None and read.response is not None:
        yield read.response


def _is_of_http(error: BaseException) -> bool:
    return any(attribute(error, name) is not None for name in ("headers", "request_info", "response", "raw_response"))


def _pairs(raw: Any) -> Iterable[tuple[Any, Any]]:
    if raw is None:
        return ()
    items = attribute(raw, "items")
    return items() if callable(items) else raw  # type: ignore[no-any-return]


def _header(raw: object) -> str:
    values = raw[:_VALUES_MOST] if isinstance(raw, list | tuple) else (raw,)
    return ", ".join(text for value in values if (text := text_of(value, 100).strip()))


def _own_body(error: BaseException) -> object:
    """``json_body`` and ``http_body`` are those of ``openai`` before 1.0."""
    bodies = (attribute(error, name) for name in ("body", "json_body", "http_body"))
    return next((body for body in bodies if body is not None), None)


def _stored(response: object) -> object:
    """Return the part of a response that was read, without its properties, which may read more."""
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
    found = (said.get("error") or said) if isinstance(said, Mapping) else None
    return found if isinstance(found, Mapping) and "message" in found and known_status(found) else None
