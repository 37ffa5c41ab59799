"""The error in a body too large to keep is the one that a parser would find, in whatever pieces its bytes arrive."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrouter_guard.rules.error_codes import status_of
from openrouter_guard.worker.classification.bodies import error_in
from openrouter_guard.worker.classification.error_search import ErrorSearch

pytestmark = pytest.mark.slow

WORDS = st.sampled_from([502, 400, "server_error", "failed", "incomplete", "error", "rate_limit_exceeded"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    WORDS,
)
NAMES = st.sampled_from(
    ["error", "errors", "choices", "finish_reason", "code", "status", "message", "response", 'a "b"', "\\", "ü"]
)
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
    _but_one(body)
    text = json.dumps(body, ensure_ascii=ascii_only, indent=indent).encode()
    found = search(text, size)
    said, expected = error_in(found.end()), error_in(body)
    assert bool(said) is bool(expected)
    assert not said or status_of(said) == status_of(expected)
    assert found.is_whole or found.end()


@pytest.mark.parametrize("nothing", [None, False, 0, "", [], {}])
@pytest.mark.parametrize("errors_first", [True, False])
def test_an_answer_with_nothing_in_it_hides_no_error(nothing: object, errors_first: bool) -> None:
    parts = [("errors", [{"message": "no"}]), ("choices", nothing)]
    found = search(json.dumps(dict(parts if errors_first else reversed(parts))).encode(), 3)
    assert error_in(found.end()) == {"message": "no"}


def _but_one(body: dict[str, Any]) -> None:
    """Leave the error at the top alone; else that of a choice, up to the first of them."""
    choices = body.get("choices")
    if isinstance(choices, list):
        body["choices"] = choices = _first_error(choices)
    if error_in({"choices": choices}) and any(error_in({**body, "choices": other}) for other in ([1], None)):
        del body["choices"]
    response = body.get("response")
    if isinstance(response, dict) and any(error_in({name: value}) for name, value in body.items()):
        del body["response"]


def _first_error(choices: list[Any]) -> list[Any]:
    """The choices up to the first with an error: what follows has been left unread."""
    with_error = [each for each in choices if isinstance(each, dict) and error_in({"error": each.get("error")})]
    return with_error[:1] or choices


@given(st.binary(max_size=200), st.integers(1, 9))
def test_anything_else_is_looked_at_without_a_word(text: bytes, size: int) -> None:
    error_in(search(text, size).end())


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
    found = error_in(search(text, size).end())
    assert {name: found.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    "piece",
    [b"[", b'{"a":', b'"', b'\\"', b'{"error":', b'{"choices":[{"error":', b"1,", b'"a":1,', b'{"a":"b"},', b"\\"],
)
@pytest.mark.parametrize("start", [b"", b"{", b'{"error":{', b'{"choices":[{'])
def test_little_is_kept_and_time_is_bounded_whatever_comes(start: bytes, piece: bytes) -> None:
    found = ErrorSearch()
    began_at = time.thread_time()
    found.feed(start)
    for _ in range(60):
        found.feed(piece * (60_000 // len(piece)))
    found.end()
    assert time.thread_time() - began_at < 5
    assert len(found._copy or b"") + len(found._copied_brackets) + len(found._name) < 200_000
