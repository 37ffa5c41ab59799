"""Parsers for foreign text, numbers, times and JSON, each within bounds.

None of them raises: an invalid value, or one out of bounds, counts as no value. So one damaged field costs only that
field. Everything from Redis, and every answer of the upstream, is read in this way.
"""

from __future__ import annotations

import ast
import json
import math
import re
from datetime import UTC, datetime
from typing import Any

__all__ = [
    "CLOCK_S",
    "DAMAGED",
    "YEAR_2000_S",
    "json_of",
    "line_of",
    "parse_moment",
    "number",
    "object_of",
    "row_of",
    "text_of",
    "whole",
]

CLOCK_S = 60.0
"""Tolerated difference of two clocks. A time that should be in the past, and is further ahead, says nothing."""
DAMAGED = "\ufffd"
"""Replacement for a byte that is not text."""
TEXT_MOST = 4096
LINE_MOST = 400
JSON_MOST = 65_536
JSON_DEPTH = 64
PYTHON_MOST = 16_384
YEAR_2000_S = 946_684_800.0
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)
_NUMBER_MOST = 400
_COUNT = re.compile(r"[0-9]{1,15}")
"""Format of a count, also in the scripts in Redis: 15 digits are exact in their numbers."""
_HALF = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


def text_of(raw: object, most: int = TEXT_MOST) -> str:
    """Return text of at most *most* characters that can be encoded as UTF-8; empty if it is not text.

    Bytes, surrogates and numbers are accepted too.
    """
    if isinstance(raw, bytes):
        return raw[: 4 * most].decode(errors="replace")[:most]
    if isinstance(raw, str):
        cut = raw[:most]
        return cut if cut.isascii() else cut.encode(errors="replace").decode()
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        # A number of many thousand digits cannot be written as text.
        return str(raw)[:most] if isinstance(raw, float) or abs(raw) < 10**TEXT_MOST else ""
    return ""


def line_of(raw: object, most: int = LINE_MOST) -> str:
    r"""Return the same as one readable line of at most *most* characters.

    Invisible characters, such as line ends, terminal escapes and marks that change the direction of text, become
    spaces.

    >>> line_of("paid\x1b[31m\n  in full\u202e")
    'paid [31m in full'
    """
    text = text_of(raw)
    line = text if text.isprintable() else "".join(each if each.isprintable() else " " for each in text)
    line = " ".join(line.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def number(raw: object, least: float, most: float) -> float | None:
    """Return a finite number, or the number in a text, from *least* to *most*; else None."""
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        found = _float(raw)
    else:
        text = text_of(raw, _NUMBER_MOST)
        found = _float(text) if _NUMBER.fullmatch(text) else math.nan
    return found if least <= found <= most else None


def whole(raw: object, most: int) -> int:
    """Return a count from 0 to *most*, or the digits of one; else 0.

    >>> [whole(each, 10) for each in ("7", 7, "-7", "7.0", "nan", "11", None)]
    [7, 7, 0, 0, 0, 0, 0]
    """
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw if 0 <= raw <= most else 0
    text = text_of(raw, 16)
    found = int(text) if _COUNT.fullmatch(text) else 0
    return found if found <= most else 0


def parse_moment(raw: object, now: float, ahead_s: float = CLOCK_S, *, earliest: float = YEAR_2000_S) -> float:
    """Return a time, given as ISO 8601 or Unix seconds, in Unix seconds.

    From *earliest* on, to *ahead_s* after *now*.

    Otherwise 0: never. A time without offset counts as UTC.
    """
    latest = now + ahead_s
    parse_iso = number(raw, earliest, latest)
    if parse_iso is not None:
        return parse_iso
    at = _parse_iso(raw)
    return at if earliest <= at <= latest else 0.0


def json_of(raw: object, most: int = JSON_MOST, depth: int = JSON_DEPTH) -> Any:
    """Return the value of JSON; None if it is invalid, longer than *most* or deeper than *depth*.

    ``NaN`` in it becomes None.

    Its numbers may be infinite, or larger than any float.
    """
    if not isinstance(raw, str | bytes) or len(raw) > most:
        return None
    text = raw.decode(errors="replace") if isinstance(raw, bytes) else raw
    if _is_deeper(text, depth):
        return None
    try:
        found = json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None
    return _writable(found) if _HALF.search(text) else found


def object_of(raw: object, most: int = JSON_MOST) -> dict[str, Any]:
    """Return a JSON object; empty if it is not one."""
    found = json_of(raw, most)
    return found if isinstance(found, dict) else {}


def row_of(raw: object) -> dict[str, Any]:
    """Return a stored error: a JSON object, or a dict as printed by older writers; else empty."""
    found = object_of(raw)
    text = "" if found else text_of(raw, PYTHON_MOST + 1)
    return found or _python_dict(text)


def _python_dict(text: str) -> dict[str, Any]:
    if not text.startswith("{") or len(text) > PYTHON_MOST or _is_deeper(text, JSON_DEPTH):
        return {}
    try:
        found = ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, SystemError, MemoryError, RecursionError):
        # SystemError: Python 3.11 may miscount its depth, even for valid text.
        return {}
    found = _writable(found) if _HALF.search(text) else found
    return {str(name): value for name, value in found.items()} if isinstance(found, dict) else {}


def _writable(found: Any) -> Any:
    """Return the same with valid UTF-8 text: an escape may stand for half a character, which cannot be encoded."""
    if isinstance(found, str):
        return found.encode(errors="replace").decode()
    if isinstance(found, dict):
        return {_writable(name): _writable(value) for name, value in found.items()}
    if isinstance(found, list | tuple):
        return [_writable(value) for value in found]
    return found


def _float(value: float | str) -> float:
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _parse_iso(raw: object) -> float:
    try:
        at = datetime.fromisoformat(raw if isinstance(raw, str) else text_of(raw, 64))
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _is_deeper(text: str, depth: int) -> bool:
    """Return whether JSON nests deeper; the parser would exceed the stack."""
    if text.count("[") + text.count("{") <= depth:
        return False
    level = 0
    for match in _BRACKET.finditer(text):
        level += {"[": 1, "{": 1, "]": -1, "}": -1}.get(match[0], 0)
        if level > depth:
            return True
    return False
