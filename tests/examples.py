"""Compare an answer with its example in a document."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["is_like"]


def is_like(told: Any, found: Any) -> bool:
    """Whether an answer looks as the example does; a null in one of them may be anything in the other."""
    return _matches(_shape(told), _shape(found))


def _shape(value: Any) -> Any:
    """Names and types: of a list its first item; a date as a name, and a text that is a time, stand for any."""
    match value:
        case dict():
            return {re.sub(r"^\d{4}-\d\d-\d\d$", "date", name): _shape(item) for name, item in value.items()}
        case list():
            return [_shape(item) for item in value[:1]]
        case str() if re.match(r"^\d{4}-\d\d-\d\dT", value):
            return "time"
        case bool() | None:
            return type(value).__name__
        case int() | float():
            return "number"
        case _:
            return type(value).__name__


def _matches(told: Any, found: Any) -> bool:
    if "NoneType" in (told, found):
        return True
    if isinstance(told, dict) and isinstance(found, dict):
        if "date" in told and "date" in found:
            # A day has the counters that it needed.
            return bool(told["date"].keys() <= found["date"].keys())
        return told.keys() == found.keys() and all(_matches(told[name], found[name]) for name in told)
    if isinstance(told, list) and isinstance(found, list):
        return len(told) == len(found) and all(map(_matches, told, found))
    return bool(told == found)
