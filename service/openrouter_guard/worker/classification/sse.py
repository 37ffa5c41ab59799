"""Decodes server-sent events from bytes in any pieces, with little memory.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

import json

__all__ = ["SSEDecoder"]

_BOM = b"\xef\xbb\xbf"


class SSEDecoder:
    """The data of the events of one stream; comments and other fields are skipped.

    The data of an event named ``error`` is returned as an error's body, in any form.

    Args:
        limit_bytes: Limit for the data of an event, and for a line; the rest is cut.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._line = bytearray()
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._is_first_line = True
        self._is_error = False
        self._follows_cr = False

    @property
    def kept_bytes(self) -> int:
        return len(self._line) + self._data_bytes

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the data of each event that ends in *piece*."""
        if self._follows_cr and piece:
            # The other half of a CRLF.
            piece = piece.removeprefix(b"\n")
            self._follows_cr = False
        self._follows_cr = self._follows_cr or piece.endswith(b"\r")
        *ended, rest = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        found: list[bytes] = []
        for text in ended:
            if line := self._whole(text):
                self._field(line)
            else:
                self._end_event(found)
        self._add(rest)
        return found

    def end(self) -> list[bytes]:
        """Return the data of an event that the end of the stream cut short, if any."""
        return self.feed(b"\n\n")

    def _add(self, text: bytes) -> None:
        self._line += text[: self._limit_bytes - len(self._line)]

    def _whole(self, text: bytes) -> bytes:
        """Return the line that ends in *text*; most come in one piece, and need no joining."""
        if not (self._line or self._is_first_line) and len(text) <= self._limit_bytes:
            return text
        self._add(text)
        line = bytes(self._line)
        self._line.clear()
        if self._is_first_line:
            self._is_first_line = False
            line = line.removeprefix(_BOM)
        return line

    def _field(self, line: bytes) -> None:
        if not line.startswith(b"data:"):
            if line != b"data":
                self._is_error = self._is_error or line.removeprefix(b"event:").strip() == b"error"
                return
            line = b"data:"
        value = line[6:] if line.startswith(b"data: ") else line[5:]
        # The line break that joins it to the previous line counts too.
        room = self._limit_bytes - self._data_bytes
        if room >= 0:
            self._data.append(value[:room])
            self._data_bytes += len(self._data[-1]) + 1

    def _end_event(self, found: list[bytes]) -> None:
        if self._data:
            data = b"\n".join(self._data)
            found.append(_as_error(data) if self._is_error else data)
            self._data.clear()
        self._data_bytes, self._is_error = 0, False


def _as_error(data: bytes) -> bytes:
    if b'"error"' in data:
        return data
    value = data if data.lstrip().startswith(b"{") else json.dumps(data.decode(errors="replace")).encode()
    return b'{"error":' + value + b"}"
