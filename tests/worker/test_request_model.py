"""The model of a request is found in a body of any size."""

from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrouter_guard.worker.http.request_model import model_in

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBORw0K" * 1_000_000}}
MESSAGES = [{"role": "user", "content": [{"type": "text", "text": 'no "model": "x" here \\'}, IMAGE]}]
JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.just("model"), inner, max_size=4),
    max_leaves=40,
)
NAMES = st.text() | st.sampled_from(["model", "models", "Model"])


@given(
    body=JSON | st.dictionaries(NAMES, JSON, max_size=6),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 0, 2]),
)
def test_it_is_what_a_parser_finds(body: Any, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(body, ensure_ascii=ascii_only, indent=indent).encode()
    model = body.get("model") if isinstance(body, dict) else None
    assert model_in(text) == (model if isinstance(model, str) else None)


@given(body=st.dictionaries(NAMES, JSON, max_size=6), cut=st.integers(0, 200), noise=st.binary(max_size=40))
def test_nothing_raises_whatever_the_body_is(body: Any, cut: int, noise: bytes) -> None:
    text = json.dumps(body).encode()
    assert isinstance(model_in(text[:cut] + noise + text[cut:]), str | None)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"model": "a/b", "messages": MESSAGES}, id="before the images"),
        pytest.param({"messages": MESSAGES, "model": "a/b"}, id="after the images"),
        pytest.param({"messages": MESSAGES * 3, "meta": {"model": "no"}, "model": "a/b"}, id="beside others"),
        pytest.param({"input": [[1, 2]] * 300_000, "model": "a/b"}, id="after many values"),
    ],
)
def test_a_large_body_does_not_hide_it_and_is_not_kept(body: Any) -> None:
    text = json.dumps(body).encode()
    assert len(text) > 1_048_576
    tracemalloc.start()
    try:
        assert model_in(text) == "a/b"
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"[" * 20_000_000, id="brackets"),
        pytest.param(b'{"a":' * 4_000_000, id="objects"),
        pytest.param(b'{"a": "' + b'\\"' * 10_000_000, id="a text without end"),
        pytest.param(b'{"a": [' + b"[[[[[[[[1]]]]]]]]," * 1_000_000, id="deep values"),
        pytest.param(b'{"a": ' + b"[" * 40 + b'"' + b"x" * 20_000_000 + b'"', id="a long text in a deep value"),
        pytest.param(b"{" + b'"a":1,' * 3_000_000, id="many names"),
    ],
)
def test_no_body_takes_long(text: bytes) -> None:
    began_at = time.process_time()
    assert model_in(text) is None
    assert time.process_time() - began_at < 3


def test_a_value_too_deep_to_be_passed_over_at_once_is_gone_through() -> None:
    deep = "[" * 50 + '"model"' + "]" * 50
    assert model_in(f'{{"a": {deep}, "model": "a/b"}}'.encode()) == "a/b"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'\xef\xbb\xbf{"model": "a"}', "a"),
        (b'{"\\u006dodel": "a\\u0062"}', "ab"),
        (b'{"model": "a", "model": "b"}', "b"),
        (b'{"model": "a", "model": 5}', None),
        (b'{"model": "' + b"a" * 10_000 + b'"}', None),
        (b'["model"]', None),
        (b"", None),
        (b'{"model"', None),
    ],
)
def test_odd_forms(text: bytes, expected: str | None) -> None:
    assert model_in(text) == expected
