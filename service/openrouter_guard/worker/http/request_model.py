"""Finds the model in the body of a request, of any size: nothing is parsed or kept."""

from __future__ import annotations

import re

from openrouter_guard.rules.parsing import json_of

__all__ = ["model_in"]

_NAME_BYTES, _MODEL_BYTES = 64, 4_096
_MARKS_MOST = 200_000
"""Number of values and brackets to examine one by one: some tenths of a second."""
_TEXT = rb'"(?:[^"\\]++|\\.)*+"'
_FLAT = rb'[^"{}\[\]]++|' + _TEXT
_DEEP = _FLAT
for _ in range(6):
    _DEEP = _FLAT + rb"|[{\[](?:" + _DEEP + rb")*+[}\]]"
_BEGIN = re.compile(rb"(?:\xef\xbb\xbf)?\s*+\{")
_NAMED = re.compile(rb"[\s,]*+(" + _TEXT + rb")\s*+:\s*+", re.DOTALL)
_VALUE = re.compile(rb"(" + _TEXT + rb")|[{\[](?:" + _DEEP + rb')*+[}\]]|[^"{}\[\],\s]++', re.DOTALL)
_BETWEEN = re.compile(rb"(?:" + _DEEP + rb")*+", re.DOTALL)


def model_in(body: bytes) -> str | None:
    """Return the text under ``model`` at the top of a JSON object.

    None if there is none, or if the body is cut before it.

    The time grows only with the size: some milliseconds for each 10 MB of an image. Of several, the last one counts,
    as in any JSON reader.
    """
    begin = _BEGIN.match(body)
    at, found = begin.end() if begin else len(body), None
    for _ in range(_MARKS_MOST):
        name = _NAMED.match(body, at)
        if name is None:
            return found
        value = _VALUE.match(body, name.end())
        if _is_model(body, name):
            found = _text(body, value) if value else None
        at = value.end() if value else _end(body, name.end())
    return found


def _is_model(body: bytes, name: re.Match[bytes]) -> bool:
    begins, ends = name.span(1)
    return ends - begins <= _NAME_BYTES and json_of(body[begins:ends]) == "model"


def _text(body: bytes, value: re.Match[bytes]) -> str | None:
    begins, ends = value.span(1)
    model = json_of(body[begins:ends]) if 0 <= begins < ends <= begins + _MODEL_BYTES else None
    return model if isinstance(model, str) else None


def _end(body: bytes, at: int) -> int:
    """Return the end of a value with deeper nesting than the patterns skip at once."""
    depth = 0
    for _ in range(_MARKS_MOST):
        match = _BETWEEN.match(body, at) if depth else None
        at = match.end() if match else at
        if body[at : at + 1] not in (b"{", b"[", b"}", b"]"):
            return len(body)
        depth += 1 if body[at] in b"{[" else -1
        at += 1
        if depth <= 0:
            return at
    return len(body)
