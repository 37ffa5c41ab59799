"""The inspection of an answer or an exception is bounded: its size costs next to nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from openrouter_guard import refusal_in, was_upstreams_fault
from openrouter_guard.rules.redaction import redact
from openrouter_guard.rules.signals import classify_error_type, classify_status
from openrouter_guard.worker.classification.classify import classify_answer, classify_exception
from openrouter_guard.worker.classification.response_inspector import of_told
from openrouter_guard.worker.legacy.reporter import _signal

pytestmark = pytest.mark.slow

SIZE = 40_000_000
AT_MOST_S = 1.5
"""Unbounded, the work on one text of this size takes from four seconds on; bounded, some tenths at the most."""


class Failed(Exception):
    """As clients raise it."""

    def __init__(self, said: str, body: object) -> None:
        super().__init__(said)
        self.status_code, self.body, self.message = 503, body, said


class LitellmFailed(Failed):
    """It has its body in its words."""

    __module__ = "litellm.exceptions"


LOOKS: list[Callable[[str], object]] = [
    redact,
    lambda text: classify_error_type("timeout", text),
    lambda text: classify_status(402, error={"message": text}, headers={"retry-after": text}, now=1.8e9),
    lambda text: classify_status(429, error={"message": text, "metadata": {"headers": {text: text}}}, now=1.8e9),
    lambda text: _signal(text, None, None),
    lambda text: classify_answer(503, body=text, headers={"retry-after": text, text: "5"}),
    lambda text: classify_answer(200, body='{"error": {"message": "' + text),
    lambda text: classify_answer(200, body={"error": {"message": text, "code": text, "type": text}}),
    lambda text: of_told(200, body=text, headers={"content-type": text}),
    lambda text: classify_exception(ValueError(text)),
    lambda text: classify_exception(Failed(text, text)),
    lambda text: classify_exception(Failed(text, {"error": text})),
    lambda text: classify_exception(LitellmFailed(text, None)),
    lambda text: was_upstreams_fault(ExceptionGroup(text, [Failed(text, text.encode(errors="replace"))])),
    lambda text: refusal_in(Failed(text, text)),
]
PIECES = [
    "sk-or-",
    "Bearer ",
    "password=",
    "://",
    '"a":',
    "{",
    "[",
    '"',
    "\\",
    "5, ",
    "\ud83d",
    "x",
    "can only afford",
]


@pytest.mark.parametrize("look", LOOKS)
@settings(deadline=None, max_examples=6)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=3))
@example([" sk-or-"])
@example(['{"a":"b"},'])
def test_processor_time_is_bounded_whatever_the_size(look: Callable[[str], object], pieces: list[str]) -> None:
    piece = "".join(pieces)
    text = piece * (SIZE // len(piece))
    began_at = time.thread_time()
    look(text)
    assert time.thread_time() - began_at < AT_MOST_S
