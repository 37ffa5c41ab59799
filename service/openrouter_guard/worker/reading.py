"""What an HTTP answer says while its bytes go by: nothing is held back, and little is kept.

Of JSON the first 64 KiB are looked at once they are all there, of a stream each event by itself. No I/O, and no HTTP
library: what reads the bytes hands them in.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from openrouter_guard.rules.signals import SUCCESS, Signal

from .events import Events
from .observe import UNREADABLE, of_answer

__all__ = ["READABLE_ENCODING", "Reading"]

KEPT_BYTES = 65_536
READABLE_ENCODING = "gzip"
_DONE = b"[DONE]"
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


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
        self._is_page = kind == "text/html"
        self._is_readable = encoding in ("", "identity", READABLE_ENCODING) and (
            self._is_stream or self._is_json or self.is_refusal
        )
        self._unzip = zlib.decompressobj(_GZIP_WINDOW) if encoding == READABLE_ENCODING else None
        self._kept = bytearray()
        self._events = Events(KEPT_BYTES)
        self._error: Mapping[str, Any] | None = None
        self._is_done = False

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
        return self.is_refusal or self._error is not None or self._is_done

    def feed(self, data: bytes) -> None:
        """Look at the next bytes, as they came."""
        for piece in self._pieces(data):
            if self._is_stream:
                self._read(self._events.feed(piece))
            elif not self.is_full:
                # Spaces keep a connection alive until the answer is there.
                self._kept += piece if self._kept else piece.lstrip()
                del self._kept[KEPT_BYTES:]

    def signal(self) -> Signal:
        """What the answer says, now that it has ended."""
        if self._is_stream:
            self._read(self._events.end())
            return of_answer(self._status_code, body=self._error)
        if self.is_refusal or self._status_code >= 300:
            return of_answer(self._status_code, body=bytes(self._kept), headers=self._headers)
        if self._is_page:
            return UNREADABLE
        if not (self._is_json and self._is_readable) or self.is_full:
            return SUCCESS
        body = _json(bytes(self._kept))
        return UNREADABLE if body is None else of_answer(self._status_code, body=body)

    def _read(self, events: list[bytes]) -> None:
        for data in events:
            self._is_done = self._is_done or data.startswith(_DONE)
            if b'"error"' in data and self._error is None:
                self._error = _error_in(_json(data))

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        if not self._is_readable:
            return
        if self._unzip is None:
            yield data
            return
        try:
            while data and not self.is_full:
                yield self._unzip.decompress(data, KEPT_BYTES)
                data = self._unzip.unconsumed_tail
        except zlib.error:
            # The client will say so; there is no more to learn from these bytes.
            self._is_readable = False


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
    reasons = [choice.get("finish_reason") for choice in choices or () if isinstance(choice, Mapping)]
    return {"error": {"message": "the stream ended in an error"}} if "error" in reasons else None


def _json(text: bytes) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None
