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
        self._events = _Events()

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
        return self.is_refusal or self._events.error is not None or self._events.is_done

    def feed(self, data: bytes) -> None:
        """Look at the next bytes, as they came."""
        for piece in self._pieces(data):
            if self._is_stream:
                self._events.feed(piece)
            elif not self.is_full:
                # Spaces keep a connection alive until the answer is there.
                self._kept += piece if self._kept else piece.lstrip()
                del self._kept[KEPT_BYTES:]

    def signal(self) -> Signal:
        """What the answer says, now that it has ended."""
        if self._is_stream:
            self._events.feed(b"\n")
            return of_answer(self._status_code, body=self._events.error)
        if self.is_refusal or self._status_code >= 300:
            return of_answer(self._status_code, body=bytes(self._kept), headers=self._headers)
        if self._is_page:
            return UNREADABLE
        if not (self._is_json and self._is_readable) or self.is_full:
            return SUCCESS
        body = _json(bytes(self._kept))
        return UNREADABLE if body is None else of_answer(self._status_code, body=body)

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


class _Events:
    """Finds the error in a stream of server-sent events."""

    def __init__(self) -> None:
        self.error: Mapping[str, Any] | None = None
        self.is_done = False
        self._line = bytearray()
        self._is_too_long = False

    def feed(self, data: bytes) -> None:
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._add(line)
            if not self._is_too_long:
                self._read(bytes(self._line).strip())
            self._line.clear()
            self._is_too_long = False
        self._add(rest)

    def _add(self, piece: bytes) -> None:
        self._is_too_long = self._is_too_long or len(self._line) + len(piece) > KEPT_BYTES
        if not self._is_too_long:
            self._line += piece

    def _read(self, line: bytes) -> None:
        # Comments keep the connection alive, and of the other fields none says anything.
        if not line.startswith(b"data:"):
            return
        data = line.removeprefix(b"data:").strip()
        if data.startswith(_DONE):
            self.is_done = True
        elif b'"error"' in data and self.error is None:
            self.error = _error_in(_json(data))


def _error_in(event: object) -> Mapping[str, Any] | None:
    """The event in the form of an error's body, where it is one."""
    if not isinstance(event, Mapping):
        return None
    response = event.get("response")
    for carrier in (event, response):
        if isinstance(carrier, Mapping) and carrier.get("error"):
            return {"error": carrier["error"]}
    choices = event.get("choices")
    reasons = [choice.get("finish_reason") for choice in choices or () if isinstance(choice, Mapping)]
    return {"error": {"message": "the stream ended in an error"}} if "error" in reasons else None


def _json(text: bytes) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None
