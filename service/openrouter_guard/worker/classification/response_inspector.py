"""Classifies an HTTP answer while its bytes pass: it holds nothing back, and keeps little.

The first bytes decide the format, because gateways label streams as text or JSON, and JSON as anything. JSON of up to
64 KiB is parsed when complete; in a larger body, only the parts about an error are searched as it passes. Each event
of a stream is examined alone. There is no I/O, and no HTTP library: the reader of the bytes passes them in.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from enum import Enum, auto
from typing import Any

from openrouter_guard.rules.parsing import json_of
from openrouter_guard.rules.signals import SUCCESS, Effect, Signal

from .bodies import error_in, is_page, searched
from .classify import NOTHING_CAME, UNREADABLE, classify_answer
from .error_search import ErrorSearch
from .evidence import headers_in, http_status
from .sse import SSEDecoder

__all__ = ["KEPT_BYTES", "READABLE_ENCODING", "ResponseInspector", "of_told"]

KEPT_BYTES = 65_536
SEARCHED_BYTES = 16_777_216
"""The error is searched in this much; a larger body counts as an answer."""
READABLE_ENCODING = "gzip"
_DONE = b"[DONE]"
_WITHOUT_BODY = (204, 205)
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_LEADING = b" \t\r\n\xef\xbb\xbf"
"""Spaces keep a connection alive until the answer comes; a BOM may precede it."""
_FIRST_BYTES = 9
"""Number of bytes that decide the format."""
_EVENTS = re.compile(rb"(?:data|event|id|retry)?:")
_ENDS = re.compile(
    rb'"(?:finish_reason|stop_reason)"\s{0,9}:\s{0,9}"|"type"\s{0,9}:\s{0,9}"(?:message_stop|response\.(?:completed|incomplete|failed|done))"'
)
_BEGINS = (b'"choices"', b'"message_start"', b'"response.created"')
"""Final events of known streams."""
_TELLS = (b"error", b'"code"', b'"status', b"failed", b"incomplete", b"cancelled", b'"success"')
"""Marks of events that may be errors: most have none of these, and need no parsing."""


class _Form(Enum):
    EVENTS = auto()
    JSON = auto()
    """One value, or one per line."""
    PAGE = auto()
    OTHER = auto()


class ResponseInspector:
    """One answer.

    Args:
        status_code: Status of the answer.
        headers: Headers of the answer, in any case.
        is_json_due: Whether its path answers in JSON or events: then anything else is not an answer.
    """

    def __init__(self, status_code: int, headers: Mapping[str, str], *, is_json_due: bool = False) -> None:
        self._status_code = status_code
        self._headers = dict(headers)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        encoding = headers.get("content-encoding", "").strip().lower().removeprefix("x-")
        self._is_labelled_stream = kind == "text/event-stream"
        # An answer labelled as a web page, and neither JSON nor events, is not sound either.
        self._is_json_due = is_json_due or kind.endswith(("json", "event-stream", "html", "xhtml+xml"))
        self._is_readable = encoding in ("", "identity", READABLE_ENCODING)
        self._unzip = zlib.decompressobj(_GZIP_WINDOW) if encoding == READABLE_ENCODING else None
        self._form: _Form | None = _Form.OTHER if self.is_refusal else None
        self._kept = bytearray()
        self._search: ErrorSearch | None = None
        self._searched = 0
        self._events = SSEDecoder(KEPT_BYTES)
        self._error: Mapping[str, Any] | None = None
        self._is_begun = self._has_data = self._is_done = self._is_garbage = False

    @property
    def is_refusal(self) -> bool:
        """Whether the status alone makes the call a failure."""
        return self._status_code >= 400

    @property
    def is_full(self) -> bool:
        return len(self._kept) >= KEPT_BYTES

    @property
    def is_decided(self) -> bool:
        """Whether later bytes cannot change the verdict."""
        return self.is_refusal or self._error is not None or self._is_done or self._is_garbage

    def feed(self, data: bytes) -> None:
        """Examine the next bytes, as they arrived."""
        for piece in self._pieces(data):
            if self._form is _Form.EVENTS:
                self._read(self._events.feed(piece))
            elif self._search is not None:
                self._look_for_error(piece)
            else:
                self._keep(piece)

    def signal(self, now: float | None = None) -> Signal:
        """Return the signal of the finished answer; *now* is the time by Redis' clock, in Unix seconds."""
        if self._status_code in _WITHOUT_BODY:
            return SUCCESS
        if self.is_refusal or self._status_code >= 300:
            return classify_answer(self._status_code, body=bytes(self._kept), headers=self._headers, now=now)
        if self._is_garbage and self._error is None and not self._is_done:
            return UNREADABLE
        return self._of_form(now) if self._is_readable else self._of_events(now)

    def _of_form(self, now: float | None) -> Signal:
        match self._form or self._decided():
            case _Form.EVENTS:
                self._read(self._events.end())
                return self._of_events(now)
            case _Form.JSON:
                return self._of_json(now)
            case _Form.PAGE:
                return UNREADABLE
            case _:
                return self._unreadable

    @property
    def _unreadable(self) -> Signal:
        """Return the verdict on other data: text or sound may be valid here."""
        return UNREADABLE if self._is_json_due else SUCCESS

    # -- as it goes by --------------------------------------------------------------------------------------------

    def _keep(self, piece: bytes) -> None:
        self._kept += piece if self._kept or self.is_refusal else piece.lstrip(_LEADING)
        if self._form is None and len(self._kept) >= _FIRST_BYTES:
            self._decided()
        if self.is_full and self._form is _Form.JSON:
            self._search = ErrorSearch()
            self._look_for_error(bytes(self._kept))
        del self._kept[KEPT_BYTES:]

    def _decided(self) -> _Form:
        """Decide the format from the bytes so far. The rest is read in that format."""
        self._form = form = self._of_first_bytes()
        if form is _Form.EVENTS:
            self._read(self._events.feed(bytes(self._kept)))
        if form is not _Form.JSON:
            self._kept.clear()
        return form

    def _of_first_bytes(self) -> _Form:
        if self._kept.startswith((b"{", b"[")):
            return _Form.JSON
        if is_page(self._kept):
            return _Form.PAGE
        if self._is_labelled_stream or _EVENTS.match(self._kept):
            return _Form.EVENTS
        return _Form.OTHER

    def _look_for_error(self, piece: bytes) -> None:
        self._searched += len(piece)
        if self._search is not None and self._searched <= SEARCHED_BYTES:
            self._search.feed(piece)

    def _read(self, events: list[bytes]) -> None:
        for data in events:
            is_end = data.startswith(_DONE)
            # Plain words are not an event of the API, nor is an end without anything before it.
            self._has_data = self._has_data or (not is_end and (data[:1] in (b"{", b"[") or not self._is_json_due))
            self._is_begun = self._is_begun or any(mark in data for mark in _BEGINS)
            self._is_done = self._is_done or (is_end and self._has_data) or _ENDS.search(data) is not None
            if self._error is None and any(mark in data for mark in _TELLS):
                self._error = error_in(_json(data)) or None

    @property
    def _wants_more(self) -> bool:
        if self._form in (_Form.PAGE, _Form.OTHER) and not self.is_refusal:
            return False
        return not self.is_full or (self._search is not None and self._searched <= SEARCHED_BYTES)

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        if not self._is_readable:
            return
        if self._unzip is None:
            if self._form is _Form.EVENTS or self._wants_more:
                yield data
            return
        try:
            while data and self._wants_more:
                yield self._unzip.decompress(data, KEPT_BYTES)
                data = self._unzip.unconsumed_tail
        except zlib.error:
            # No client can read it either, and the following bytes add nothing.
            self._is_readable, self._is_garbage = False, True

    # -- at its end -----------------------------------------------------------------------------------------------

    def _of_json(self, now: float | None) -> Signal:
        if self._search is not None:
            return self._of_search(self._search, now)
        body = json_of(bytes(self._kept))
        if body is not None:
            return classify_answer(self._status_code, body=body, headers=self._headers, now=now)
        return self._of_lines(now) or self._of_cut(now)

    def _of_lines(self, now: float | None) -> Signal | None:
        """Return a stream of JSON, one value per line; None if it is not one."""
        lines = [line for line in bytes(self._kept).split(b"\n") if line.strip()]
        if len(lines) < 2 or json_of(lines[0]) is None:
            return None
        self._read(lines)
        is_cut = json_of(lines[-1]) is None and not lines[-1].startswith(_DONE)
        return self._unreadable if is_cut and self._error is None else self._of_events(now)

    def _of_cut(self, now: float | None) -> Signal:
        found = searched(bytes(self._kept))
        signal = classify_answer(self._status_code, body=found, headers=self._headers, now=now)
        return self._unreadable if signal.effect is Effect.SUCCESS else signal

    def _of_search(self, search: ErrorSearch, now: float | None) -> Signal:
        signal = classify_answer(self._status_code, body=search.end(), headers=self._headers, now=now)
        is_cut = not (search.is_whole or search.is_given_up or self._searched > SEARCHED_BYTES)
        return self._unreadable if is_cut and signal.effect is Effect.SUCCESS else signal

    def _of_events(self, now: float | None) -> Signal:
        if self._error is not None:
            return classify_answer(self._status_code, body={"error": self._error}, headers=self._headers, now=now)
        if not self._is_readable or self._is_done:
            return SUCCESS
        # Comments alone are no answer, nor is a stream that breaks off.
        return NOTHING_CAME if self._is_begun or not self._has_data else SUCCESS


def of_told(status_code: int, *, body: object = None, headers: object = None, now: float | None = None) -> Signal:
    """Return the signal of an answer reported by a worker; text is treated as if it had just arrived.

    Args:
        status_code: Status of the HTTP answer.
        body: Parsed JSON, text, bytes, or an SDK's object for it.
        headers: Headers of the answer, in any case: a mapping, or pairs.
        now: Unix seconds by Redis' clock, for answers without a ``Date``; None: this machine's.
    """
    status = http_status(status_code)
    if status is None or not isinstance(body, str | bytes | bytearray):
        return classify_answer(status_code, body=body, headers=headers, now=now)
    # Without its encoding: the reporting client has decompressed it.
    reading = ResponseInspector(status, headers_in(headers))
    reading.feed(body[:SEARCHED_BYTES].encode(errors="replace") if isinstance(body, str) else bytes(body))
    return reading.signal(now)


def _json(text: bytes) -> object:
    """Return the event; for a cut one, the error in it."""
    found = json_of(text)
    return searched(text) if found is None else found
