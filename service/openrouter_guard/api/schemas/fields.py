"""The fields that bodies of requests share: read within bounds, and cleaned."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    StringConstraints,
    WithJsonSchema,
)

from openrouter_guard.rules.models import clean
from openrouter_guard.rules.parsing import line_of, number, text_of
from openrouter_guard.rules.signals import ErrorType

__all__ = [
    "BREAKER_EXAMPLE",
    "ERROR_TYPE_SCHEMA",
    "MESSAGE_MOST",
    "RESULTS_MAX",
    "SEQUENCE_MAX",
    "VERSION_MOST",
    "Model",
    "Name",
    "When",
    "Words",
    "read_error",
    "read_line",
    "read_moment",
    "read_seconds",
    "read_status",
]

RESULTS_MAX = 1000
MESSAGE_MOST = 1000
VERSION_MOST = 50
ERROR_TYPE_SCHEMA = {"anyOf": [{"type": "string", "examples": [*ErrorType]}, {"type": "null"}]}
SEQUENCE_MAX = 2**53 - 1
"""The largest whole number that every JSON reader, and Redis' scripts, represent exactly."""


def read_line(words: str) -> str:
    """Return the visible text: characters that change the direction of text, or are invisible, are removed."""
    if line := line_of(words):
        return line
    raise ValueError("write visible text")


Words = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$"),
    AfterValidator(read_line),
]
"""One line, for the history."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[!-~]+$")]
Model = Annotated[str, BeforeValidator(clean), WithJsonSchema({"type": "string"})]
"""As typed by users: cleaned and cut, never refused."""


def read_moment(value: Any) -> datetime:
    """Parse an unambiguous time: numbers, and times without an offset, are refused."""
    try:
        at = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError("write a time such as 2026-03-01T12:00:00+00:00") from None
    if at.tzinfo is None:
        raise ValueError("write the offset too, such as 2026-03-01T12:00:00+00:00")
    return at


When = Annotated[datetime, BeforeValidator(read_moment), WithJsonSchema({"type": "string", "format": "date-time"})]


def read_status(value: Any) -> int | None:
    """Return the status of an answer; None if it is not one."""
    found = number(value, 100, 1e6)
    return None if found is None else min(int(found), 599)


def read_seconds(most: float) -> Any:
    def clamped(value: Any) -> float | None:
        found = number(value, 0.0, math.inf)
        return None if found is None else min(found, most)

    schema = {"anyOf": [{"type": "number", "minimum": 0}, {"type": "null"}]}
    return Annotated[float | None, BeforeValidator(clamped), WithJsonSchema(schema)]


def read_error(value: Any) -> dict[str, Any] | None:
    """Return the object under ``error``, which some clients turn into text."""
    if isinstance(value, str) and value:
        return {"message": text_of(value, MESSAGE_MOST)}
    return value if isinstance(value, dict) and value else None


BREAKER_EXAMPLE: dict[str, Any] = {
    "state": "closed",
    "reason": None,
    "opened_at": None,
    "retry_at": None,
    "epoch": 1772366400000,
    "override": None,
    "nobody_tries": False,
    "ramp": 1.0,
}
