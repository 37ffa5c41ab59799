"""Finds the error in the body of an answer, in any place and form. Nothing raises.

Sources: https://openrouter.ai/docs/api-reference/errors; the statuses and events of the Responses API in OpenRouter's
Python SDK; and the answers of gateways in front of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from openrouter_guard.rules.error_codes import known_status
from openrouter_guard.rules.parsing import json_of

from .causes import attribute
from .error_search import ANSWERS, ErrorSearch

__all__ = ["error_in", "is_blank", "is_cut", "is_page", "parsed", "searched"]

_MARKS_MOST = 50_000
WHOLE_BYTES = 65_536
"""A larger body is searched for its error, and not parsed."""
SEARCHED_BYTES = 4_194_304
"""The searched part: some hundredths of a second."""
_CHOICES_MOST = 16
_BEGINNING = 256
_ENDED_IN_ERROR: Mapping[str, Any] = {"message": "the answer ended in an error"}
_PAGE = re.compile(rb"\s*<(?:!doctype|!--|\?xml|html|head|body)", re.IGNORECASE)
_ANSWER = re.compile(rb'\s*\{\s*"(?:id|object|choices|provider|model|created)"\s*:')
_PART = re.compile(r"response\.[a-z_]{1,64}\.")
"""Events about a part of a response, such as one of several models: the others may succeed."""
_NOT_COMPLETED: Mapping[str, Mapping[str, Any]] = {
    "failed": {"message": "the response failed"},
    "incomplete": {"message": "the response is incomplete"},
    "cancelled": {"code": "invalid_request", "message": "the response was cancelled"},
}
_OF_THE_REQUEST: Mapping[str, Any] = {"code": "invalid_request", "message": "the response is as long as it may be"}


def parsed(body: object) -> object:
    """Return the value of a JSON text; None if it is not JSON. Other values are returned unchanged."""
    if isinstance(body, str):
        body = body[:SEARCHED_BYTES].encode(errors="replace")
    if isinstance(body, bytearray | memoryview):
        body = bytes(body[:SEARCHED_BYTES])
    if not isinstance(body, bytes):
        return body
    text = body[: SEARCHED_BYTES + 1].removeprefix(b"\xef\xbb\xbf").strip()
    if len(text) > WHOLE_BYTES:
        return searched(text)
    found = json_of(text)
    # Invalid JSON may be the beginning of a JSON text.
    return (searched(text) or None) if found is None else found


def is_page(body: object) -> bool:
    """Return whether it is a web page, such as a gateway's."""
    return _PAGE.match(_beginning(body)) is not None


def is_blank(body: object) -> bool:
    """Return whether it is an empty text."""
    return isinstance(body, str | bytes) and not body[:SEARCHED_BYTES].strip()


def is_cut(body: object) -> bool:
    """Return whether a text begins like an answer in JSON but is not valid JSON."""
    return _ANSWER.match(_beginning(body)) is not None and parsed(body) is None


def _beginning(body: object) -> bytes:
    text = body[:_BEGINNING] if isinstance(body, str | bytes | bytearray) else b""
    return text.encode(errors="replace") if isinstance(text, str) else bytes(text)


def searched(text: bytes) -> object:
    """Return the parts about an error from JSON that is too long or cut.

    ``{}`` if there are none, None if it is cut.
    """
    search = ErrorSearch(_MARKS_MOST)
    search.feed(text[:SEARCHED_BYTES])
    found = search.end()
    return found if error_in(found) else {} if search.is_whole else None


def error_in(body: object, *, is_refusal: bool = False) -> Mapping[str, Any]:
    """Return the error in a body, or in an event of a stream; empty if there is none.

    It is at the top, in ``response`` or in one of the choices; a failed response without a reason counts too.

    Args:
        body: As returned by :func:`parsed`, or an SDK's object for an answer.
        is_refusal: The status is an error: then the body may be the content of ``error``, as the ``openai`` SDK
            returns it.
    """
    if isinstance(body, list | tuple):
        body = body[0] if body else None
    if body is None or isinstance(body, str | bytes | int | float) or _is_part(body):
        return {}
    return (
        _given(_field(body, "error"))
        or _bare(body, is_refusal=is_refusal)
        or _of_response(body)
        or _of_choices(_field(body, "choices"))
    )


def _field(thing: object, name: str) -> Any:
    return thing.get(name) if isinstance(thing, Mapping) else attribute(thing, name)


def _is_part(event: object) -> bool:
    kind = _field(event, "type")
    return isinstance(kind, str) and _PART.match(kind) is not None


def _given(value: object) -> Mapping[str, Any]:
    """The value of ``error``, in the form that the API documents."""
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
    """The body itself if it is the error, as from gateways, and the events of the Responses API."""
    if not isinstance(body, Mapping):
        # Fields that an SDK's model does not know: pydantic keeps them apart.
        extra = attribute(body, "model_extra")
        known = {name: attribute(body, name) for name in ("type", "object", "status", *ANSWERS)}
        return _bare({**known, **extra}, is_refusal=is_refusal) if isinstance(extra, Mapping) else {}
    if is_refusal:
        return body if "metadata" in body or ("message" in body and "code" in body) else {}
    if "error" in [body.get(name) for name in ("type", "object", "status")] or body.get("success") is False:
        return _of_several(body) or body
    if any(body.get(name) for name in ANSWERS):
        return {}
    return body if known_status(body) else _of_several(body)


def _of_several(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """``errors`` in place of ``error``; a code in it has another meaning."""
    errors = body.get("errors")
    first = errors[0] if isinstance(errors, list | tuple) and errors else errors
    found = _given(first) if isinstance(first, Mapping | str) else {}
    return found if not found or known_status(found) else {"message": found.get("message")}


def _of_response(body: object) -> Mapping[str, Any]:
    """The error of a response of the Responses API: in the body itself, or under ``response`` in its events."""
    for carrier in (body, _field(body, "response")):
        if carrier is None or isinstance(carrier, str | bytes | int | float | list | tuple):
            continue
        if carrier is not body and (found := _given(_field(carrier, "error"))):
            return found
        if found := _of_state(_field(carrier, "status"), _field(carrier, "incomplete_details")):
            return found
    kind = _field(body, "type")
    return _of_state(kind.removeprefix("response."), None) if isinstance(kind, str) and "." in kind else {}


def _of_state(state: object, details: object) -> Mapping[str, Any]:
    error = _NOT_COMPLETED.get(state, {}) if isinstance(state, str) else {}
    reason = _field(details, "reason") if state == "incomplete" and details is not None else None
    if isinstance(reason, str) and reason:
        # The request asked for this end.
        return {"code": reason, "message": error["message"]} if known_status({"code": reason}) else _OF_THE_REQUEST
    return error


def _of_choices(choices: object) -> Mapping[str, Any]:
    if not isinstance(choices, list | tuple):
        return {}
    for choice in choices[:_CHOICES_MOST]:
        found = _given(_field(choice, "error"))
        if found or _field(choice, "finish_reason") == "error":
            return found or _ENDED_IN_ERROR
    return {}
