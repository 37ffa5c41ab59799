"""What an HTTP answer says while its bytes go by: nothing is held back, and little is kept.

JSON of up to 64 KiB is looked at once it is all there; of more the error alone is looked for, as it goes by. Of a
stream each event is looked at by itself. No I/O, and no HTTP library: what reads the bytes hands them in.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from openrouter_guard.rules.parsing import json_of
from openrouter_guard.rules.signals import SUCCESS, Signal

from .events import Events
from .evidence import error_in, parsed, searched
from .observe import NOTHING_CAME, UNREADABLE, of_answer
from .search import ErrorSearch

__all__ = ["READABLE_ENCODING", "Reading"]

KEPT_BYTES = 65_536
SEARCHED_BYTES = 16_777_216
"""Of so much the error is looked for: more than that is taken for an answer."""
READABLE_ENCODING = "gzip"
_DONE = b"[DONE]"
_WITHOUT_BODY = (204, 205)
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_DATA = ("audio/", "video/", "image/", "font/", "application/octet-stream", "application/pdf", "application/zip")
_ENDS = re.compile(
    rb'"(?:finish_reason|stop_reason)"\s{0,9}:\s{0,9}"|"type"\s{0,9}:\s{0,9}"(?:message_stop|response\.(?:completed|incomplete|failed|done))"'
)
_PAGE = re.compile(rb"<(?:!doctype html|html)\b", re.IGNORECASE)
_BEGINS = (b'"choices"', b'"message_start"', b'"response.created"')
"""Events of the streams whose end is known."""


class Reading:
    """One answer.

    Args:
        status_code: Of the answer.
        headers: Of the answer, found whatever their case is.
    """

    def __init__(self, status_code: int, headers: Mapping[str, str]) -> None:
        self._status_code = status_code
        self._headers = dict(headers)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        encoding = headers.get("content-encoding", "").strip().lower()
        self._is_stream = kind == "text/event-stream" and not self.is_refusal
        self._is_json = kind.endswith("json")
        self._is_page = kind in ("text/html", "application/xhtml+xml")
        is_text = not kind.startswith(_DATA)
        self._is_readable = encoding in ("", "identity", READABLE_ENCODING) and (is_text or self.is_refusal)
        self._unzip = zlib.decompressobj(_GZIP_WINDOW) if encoding == READABLE_ENCODING else None
        self._kept = bytearray()
        self._search: ErrorSearch | None = None
        self._searched = 0
        self._events = Events(KEPT_BYTES)
        self._error: Mapping[str, Any] | None = None
        self._is_begun = self._has_data = self._is_done = self._is_garbage = False

    @property
    def is_refusal(self) -> bool:
        """Whether the status alone says that the call failed."""
        return self._status_code >= 400

    @property
    def is_full(self) -> bool:
        return len(self._kept) >= KEPT_BYTES

    @property
    def is_decided(self) -> bool:
        """Whether nothing that may still come changes what it says."""
        return self.is_refusal or self._error is not None or self._is_done or self._is_garbage

    def feed(self, data: bytes) -> None:
        """Look at the next bytes, as they came."""
        for piece in self._pieces(data):
            if self._is_stream:
                self._read(self._events.feed(piece))
            elif self._search is not None:
                self._look_for_error(piece)
            else:
                self._keep(piece)

    def signal(self, now_s: float | None = None) -> Signal:
        """What the answer says, now that it has ended; *now_s* is the time by Redis' clock, in Unix seconds."""
        if self._status_code in _WITHOUT_BODY:
            return SUCCESS
        if self._is_garbage and self._error is None and not self._is_done and self._status_code < 300:
            return UNREADABLE
        if self._is_stream and self._status_code < 300:
            self._read(self._events.end())
            return self._of_stream(now_s)
        if self.is_refusal or self._status_code >= 300:
            return of_answer(self._status_code, body=bytes(self._kept), headers=self._headers, now_s=now_s)
        if self._is_page or _PAGE.match(self._kept):
            return UNREADABLE
        if not (self._is_readable and (self._is_json or self._looks_like_json)):
            return SUCCESS
        if self._search is not None:
            return self._of_search(self._search, now_s)
        body = parsed(bytes(self._kept))
        if body is None and self._is_json:
            return UNREADABLE
        return of_answer(self._status_code, body=body, headers=self._headers, now_s=now_s)

    @property
    def _looks_like_json(self) -> bool:
        return self._kept.startswith(b"{")

    def _keep(self, piece: bytes) -> None:
        # Spaces keep a connection alive until the answer is there.
        self._kept += piece if self._kept else piece.lstrip()
        if self.is_full and not self.is_refusal and (self._is_json or self._looks_like_json):
            self._search = ErrorSearch()
            self._look_for_error(bytes(self._kept))
        del self._kept[KEPT_BYTES:]

    def _look_for_error(self, piece: bytes) -> None:
        self._searched += len(piece)
        if self._search is not None and self._searched <= SEARCHED_BYTES:
            self._search.feed(piece)

    def _of_search(self, search: ErrorSearch, now_s: float | None) -> Signal:
        found = search.end()
        if found is not None:
            return of_answer(self._status_code, body=found, headers=self._headers, now_s=now_s)
        is_cut = not (search.is_whole or search.is_given_up or self._searched > SEARCHED_BYTES)
        return UNREADABLE if is_cut else SUCCESS

    def _of_stream(self, now_s: float | None) -> Signal:
        if self._error is not None:
            return of_answer(self._status_code, body=self._error, headers=self._headers, now_s=now_s)
        if not self._is_readable or self._is_done:
            return SUCCESS
        # Comments alone are no answer, nor is one that breaks off.
        return NOTHING_CAME if self._is_begun or not self._has_data else SUCCESS

    def _read(self, events: list[bytes]) -> None:
        for data in events:
            self._has_data = True
            self._is_begun = self._is_begun or any(mark in data for mark in _BEGINS)
            self._is_done = self._is_done or data.startswith(_DONE) or _ENDS.search(data) is not None
            if b'"error"' in data and self._error is None:
                self._error = _error_in(_json(data))

    @property
    def _wants_more(self) -> bool:
        return not self.is_full or (self._search is not None and self._searched <= SEARCHED_BYTES)

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        if not self._is_readable:
            return
        if self._unzip is None:
            yield data
            return
        try:
            while data and self._wants_more:
                yield self._unzip.decompress(data, KEPT_BYTES)
                data = self._unzip.unconsumed_tail
        except zlib.error:
            # No client can read it either; and there is no more to learn from these bytes.
            self._is_readable, self._is_garbage = False, True


def _error_in(event: object) -> Mapping[str, Any] | None:
    """The event in the form of an error's body, where it is one."""
    if not isinstance(event, Mapping):
        return None
    response = event.get("response")
    for carrier in (event, response):
        if isinstance(carrier, Mapping) and carrier.get("error"):
            return {"error": carrier["error"]}
    if event.get("type") == "error":
        # The Responses API has code and message at the top.
        return {"error": event}
    choices = event.get("choices")
    found = error_in({"choices": choices})
    return {"error": found} if found else None


def _json(text: bytes) -> object:
    """The event; of one that was cut the error in it."""
    found = json_of(text)
    return searched(text) if found is None else found
