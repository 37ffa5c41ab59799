"""The error in a body too large to be kept is the one that a parser would find, however its bytes come."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrouter_guard.worker.evidence import error_in
from openrouter_guard.worker.search import ErrorSearch

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20))
NAMES = st.sampled_from(["error", "choices", "finish_reason", "code", "message", 'a "b"', "\\", "ü"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=12,
)
BODIES = st.dictionaries(NAMES, VALUES, max_size=5)


def search(text: bytes, size: int) -> ErrorSearch:
    found = ErrorSearch()
    for start in range(0, len(text), size):
        found.feed(text[start : start + size])
    return found


@given(BODIES, st.integers(1, 30), st.booleans(), st.sampled_from([None, 1]))
def test_it_finds_what_a_parser_finds(body: dict[str, Any], size: int, ascii_only: bool, indent: int | None) -> None:
    # Of two errors in one body either will do.
    choices = body.get("choices")
    if body.get("error") and isinstance(choices, list) and error_in({"choices": choices}):
        del body["choices"]
    text = json.dumps(body, ensure_ascii=ascii_only, indent=indent).encode()
    found = search(text, size)
    said = error_in(found.end() or {})
    expected = error_in({"error": body.get("error")}) or error_in({"choices": _first_error(body.get("choices"))})
    assert bool(said) is bool(expected)
    assert said == expected
    assert found.end() or found.is_whole


def _first_error(choices: object) -> object:
    """The choices up to the first with an error: what follows has been left unread."""
    if not isinstance(choices, list):
        return choices
    with_error = [each for each in choices if isinstance(each, dict) and error_in({"error": each.get("error")})]
    return with_error[:1] or choices


@given(st.binary(max_size=200), st.integers(1, 9))
def test_anything_else_is_looked_at_without_a_word(text: bytes, size: int) -> None:
    error_in(search(text, size).end() or {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"error": {"code": 502, "message": "cut", "metadata": {"raw": "yy', {"code": 502, "message": "cut"}),
        (b'{"error": {"code": 502, "metadata": {"raw": ["a", "b', {"code": 502}),
        (b'{"error": {"code": 502, "mess', {"message": "the error is too long to be read"}),
        (b'{"error": {"code": 502, "message": "' + b"\\u00e4" * 50_000 + b'"}}', {"code": 502}),
        (b'{"error": [' + b"1," * 100_000 + b"1]}", {"message": "the error is too long to be read"}),
        (b'{"error": "overloaded"}', {"message": "overloaded"}),
        (b'{"error": {}, "choices": [{}, {"finish_reason": "error"}]}', {"message": "the answer ended in an error"}),
    ],
)
@pytest.mark.parametrize("size", [1, 1000, 1_000_000])
def test_an_error_that_is_long_or_cut(text: bytes, expected: dict[str, Any], size: int) -> None:
    found = error_in(search(text, size).end() or {})
    assert {name: found.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    "piece",
    [b"[", b'{"a":', b'"', b'\\"', b'{"error":', b'{"choices":[{"error":', b"1,", b'"a":1,', b'{"a":"b"},', b"\\"],
)
@pytest.mark.parametrize("start", [b"", b"{", b'{"error":{', b'{"choices":[{'])
def test_little_is_kept_and_time_is_bounded_whatever_comes(start: bytes, piece: bytes) -> None:
    found = ErrorSearch()
    began_s = time.thread_time()
    found.feed(start)
    for _ in range(60):
        found.feed(piece * (60_000 // len(piece)))
    found.end()
    assert time.thread_time() - began_s < 5
    assert len(found._copy or b"") + len(found._copied_brackets) + len(found._name) < 200_000
