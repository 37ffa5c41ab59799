"""Finds the parts about an error in a JSON text too large to keep: in pieces, with little memory, without recursion.

It searches ``error`` at the top, in ``response`` and in each of ``choices``, a ``finish_reason`` that is ``error``,
and other signs of a missing answer. Their values are copied, with long texts cut.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from openrouter_guard.rules.error_codes import NUMBERS
from openrouter_guard.rules.parsing import json_of

__all__ = ["ANSWERS", "ErrorSearch"]

ANSWERS = ("choices", "output", "data", "content", "results", "embeddings", "images", "text")
"""Keys of the API's answers.

A body with one of these is not an error, even if another part of it is named ``code``.
"""
_TELLING = (b"message", b"type", b"object", b"metadata", b"errors", b"success", b"incomplete_details")
_AT_TOP = frozenset((b"error", *_TELLING, *(each.encode() for each in NUMBERS)))
_IN_RESPONSE = frozenset((b"error", b"status", b"incomplete_details"))
_IN_CHOICE = frozenset((b"error", b"finish_reason"))
_ANSWERS = frozenset(each.encode() for each in ANSWERS)

_TEXT_BYTES = 2_048
_COPY_BYTES = 32_768
_KEY_BYTES = 64
_SCALAR_BYTES = 32
_MARKS_MOST = 200_000
"""Number of brackets and texts to examine: some tenths of a second."""
_TEXT = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_UNITS = re.compile(rb'(?:[^"\\]++|\\[^u]|\\u[0-9A-Fa-f]{4})*+', re.DOTALL)
_NAMED = re.compile(rb'[^"{}\[\],:]*+')
_FLAT = rb'[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+"'
_DEEP = _FLAT
for _ in range(3):
    _DEEP = _FLAT + rb"|[{\[](?:" + _DEEP + rb")*+[}\]]"
_BETWEEN = re.compile(rb"(?:" + _FLAT + rb")*+", re.DOTALL)
_SKIPPED = re.compile(rb"(?:" + _DEEP + rb")*+", re.DOTALL)
"""Irrelevant values with their content, some brackets deep: most of a body is skipped in this way."""
_CLOSING = {0x7B: b"}", 0x5B: b"]"}
_QUOTE, _COLON, _COMMA, _BACKSLASH = b'":,\\'
_OPEN, _CLOSE = b"{[", b"}]"
_UNREAD: Mapping[str, Any] = {"message": "the error is too long to be read"}


class ErrorSearch:
    """One text.

    Args:
        marks_most: Number of brackets and texts to examine.

    Attributes:
        is_whole: Whether its outermost bracket was closed.
        is_given_up: Whether there was too much to examine: then the rest is unknown.
    """

    def __init__(self, marks_most: int = _MARKS_MOST) -> None:
        self._marks_most = marks_most
        self.is_whole = self.is_given_up = False
        self._is_found = False
        self._told: dict[str, Any] = {}
        self._marks = 0
        self._depth = 0
        # Of the three outermost levels: the bracket that opened each, and the last name in it.
        self._brackets = bytearray(3)
        self._names = [b"", b"", b""]
        self._in_text = self._is_escaped = self._is_name = False
        self._name = bytearray()
        self._copy: bytearray | None = None
        self._copy_depth = 0
        self._copied_text = 0
        self._is_cut = False
        self._copied_brackets = bytearray()
        # The part of an answer that has begun, not yet known to be non-empty.
        self._answer, self._scalar = b"", bytearray()

    def feed(self, data: bytes) -> None:
        """Examine the next bytes."""
        at = 0
        while at < len(data) and not self._is_found and not self.is_given_up:
            at = self._through_text(data, at) if self._in_text else self._through_marks(data, at)

    def end(self) -> Mapping[str, Any]:
        """Return the parts about an error in the structure of the body; a cut end is completed."""
        if not self._is_found and self._copy is not None:
            closing = b"".join(_CLOSING[each] for each in reversed(self._copied_brackets))
            self._copy_ended(b'"' * self._in_text + closing)
        return self._told

    # -- within a text --------------------------------------------------------------------------------------------

    def _through_text(self, data: bytes, at: int) -> int:
        if self._is_escaped:
            self._is_escaped = False
            self._take(data[at : at + 1])
            return at + 1
        match = _TEXT.match(data, at)
        end = match.end() if match else at
        self._take(data[at:end])
        if end == len(data):
            return end
        if data[end] == _BACKSLASH:
            self._is_escaped = True
            self._take(b"\\")
        else:
            self._in_text = False
            self._text_ended()
        return end + 1

    def _take(self, text: bytes) -> None:
        if self._answer and text:
            self._answered()
        if self._copy is None:
            if self._is_name:
                self._name += text[: _KEY_BYTES - len(self._name)]
            return
        if self._is_cut:
            return
        room = _TEXT_BYTES - self._copied_text
        if len(text) <= room:
            self._copied_text += len(text)
            self._add(text)
        else:
            # Once cut, no more of this text is taken: it would not fit together.
            self._is_cut = True
            begun = max(len(self._copy) - self._copied_text, 0)
            whole = _units(bytes(self._copy[begun:]) + text[:room])
            del self._copy[begun:]
            self._add(whole)

    def _text_ended(self) -> None:
        self._add(b'"')
        if self._copy is None and self._is_name:
            self._names[self._depth - 1] = bytes(self._name)

    # -- between texts --------------------------------------------------------------------------------------------

    def _through_marks(self, data: bytes, at: int) -> int:
        match = self._passed.match(data, at)
        end = match.end() if match else at
        self._add(data[at:end])
        if self._answer:
            self._look_into(data[at:end])
        if end == len(data):
            return end
        self._marks += 1
        self.is_given_up = self._marks > self._marks_most
        if self._answer:
            self._look_at(data[end])
        self._mark(data[end])
        return end + 1

    @property
    def _passed(self) -> re.Pattern[bytes]:
        """Return the end of the irrelevant part before the next mark."""
        if self._copy is not None or self._is_of_interest:
            return _NAMED
        holds_more = self._depth == 0 or (self._depth == 2 and self._names[0] == b"choices")
        return _BETWEEN if holds_more else _SKIPPED

    @property
    def _is_of_interest(self) -> bool:
        """Return whether this is inside an object that may hold an error."""
        if self._depth == 3:
            return self._names[0] == b"choices" and self._brackets == b"{[{"
        if self._depth == 2:
            return self._names[0] == b"response" and self._brackets[:2] == b"{{"
        return self._depth == 1 and self._brackets[0] in b"{"

    def _mark(self, mark: int) -> None:
        if mark == _QUOTE:
            self._in_text, self._is_cut, self._copied_text = True, False, 0
            self._name.clear()
            self._add(b'"')
        elif mark in _OPEN:
            self._opened(mark)
        elif mark in _CLOSE:
            self._closed(mark)
        elif mark == _COMMA:
            self._value_ended()
            self._add(b",")
            self._is_name = self._is_of_interest
        elif self._copy is not None:
            self._add(b":")
        else:
            self._is_name = False
            self._value_begins()

    def _opened(self, mark: int) -> None:
        self._add(bytes((mark,)))
        if self._copy is not None:
            self._copied_brackets.append(mark)
        self._depth += 1
        self.is_whole = False
        if self._depth <= 3:
            self._brackets[self._depth - 1] = mark
            self._names[self._depth - 1] = b""
        self._is_name = self._is_of_interest

    def _closed(self, mark: int) -> None:
        self._value_ended()
        if self._copied_brackets:
            self._add(bytes((mark,)))
            self._copied_brackets.pop()
        self._depth = max(self._depth - 1, 0)
        self._is_name = False
        self.is_whole = self._depth == 0

    # -- copies ---------------------------------------------------------------------------------------------------

    def _value_begins(self) -> None:
        if not self._is_of_interest:
            return
        name = self._names[self._depth - 1]
        if self._depth == 1 and name in _ANSWERS:
            self._answer = name
            self._scalar.clear()
        if name in (_AT_TOP, _IN_RESPONSE, _IN_CHOICE)[self._depth - 1]:
            self._copy, self._copy_depth = bytearray(), self._depth
            self._copied_brackets.clear()

    def _look_into(self, passed: bytes) -> None:
        if self._depth == 1:
            self._scalar += passed[: _SCALAR_BYTES - len(self._scalar)]
        elif passed.strip():
            self._answered()

    def _look_at(self, mark: int) -> None:
        if self._depth > 1 and mark not in _CLOSE:
            self._answered()
        elif self._depth > 1 or mark == _COMMA or mark in _CLOSE:
            # Empty, as ``[]``; or neither text nor bracket, as ``null``.
            read = json_of(b"[" + bytes(self._scalar) + b"]")
            if self._depth == 1 and (read is None or any(read)):
                self._answered()
            self._answer = b""

    def _answered(self) -> None:
        self._told.setdefault(self._answer.decode(), True)
        self._answer = b""

    def _value_ended(self) -> None:
        if self._copy is not None and self._depth == self._copy_depth:
            self._copy_ended(b"")

    def _copy_ended(self, closing: bytes) -> None:
        read = json_of(b"[" + bytes(self._copy or b"") + closing + b"]")
        value = read[0] if isinstance(read, list) and read else None
        name = self._names[self._copy_depth - 1].decode(errors="replace")
        self._copy = None
        self._copied_brackets.clear()
        if name == "error" and (_says(value) or read is None):
            self._is_found, kind = True, self._told.get("type")
            self._told = {"type": kind, "error": value or _UNREAD}
        elif name == "finish_reason":
            if value == "error":
                self._told["choices"] = [{"finish_reason": "error"}]
        elif self._copy_depth == 1:
            self._told[name] = value
        elif self._copy_depth == 2:
            self._told["response"] = {**self._told.get("response", {}), name: value}

    def _add(self, data: bytes) -> None:
        if self._copy is not None and len(self._copy) <= _COPY_BYTES:
            self._copy += data[: _COPY_BYTES + 1]


def _says(error: object) -> bool:
    """Whether ``error`` has a value."""
    first = error[0] if isinstance(error, list) and error else error
    return isinstance(first, Mapping | str | int | float) and bool(first)


def _units(text: bytes) -> bytes:
    """Return as much of a text as does not end within an escape."""
    match = _UNITS.match(text)
    return match[0] if match else b""
