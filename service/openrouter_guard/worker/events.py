"""Server-sent events, found in bytes that come in any pieces, in little space.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["Events"]

_BOM = b"\xef\xbb\xbf"


class Events:
    """The data of the events of one stream; comments and other fields are left out.

    Args:
        limit_bytes: An event with more data than this is left out, and a line is kept up to here.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._line = bytearray()
        self._data = bytearray()
        self._is_cut = False
        self._is_too_long = False
        self._is_first_line = True
        self._follows_cr = False

    @property
    def kept_bytes(self) -> int:
        return len(self._line) + len(self._data)

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The data of each event that ends in *piece*."""
        if self._follows_cr and piece:
            # The other half of a CRLF.
            piece = piece.removeprefix(b"\n")
            self._follows_cr = False
        for line in piece.splitlines(keepends=True):
            text = line.rstrip(b"\r\n")
            self._add(text)
            if len(text) < len(line):
                yield from self._end_line()
        self._follows_cr = self._follows_cr or piece.endswith(b"\r")

    def end(self) -> Iterator[bytes]:
        """The data of an event that the end of the stream cut short, if it has any."""
        yield from self._end_line()
        yield from self._end_event()

    def _add(self, text: bytes) -> None:
        room = self._limit_bytes - len(self._line)
        self._is_cut = self._is_cut or len(text) > room
        self._line += text[:room]

    def _end_line(self) -> Iterator[bytes]:
        line = bytes(self._line)
        if self._is_first_line:
            self._is_first_line = False
            line = line.removeprefix(_BOM)
        if line:
            self._field(line)
        else:
            yield from self._end_event()
        self._line.clear()
        self._is_cut = False

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name != b"data":
            return
        value = value.removeprefix(b" ") + b"\n"
        self._is_too_long = self._is_too_long or self._is_cut or len(self._data) + len(value) > self._limit_bytes
        if not self._is_too_long:
            self._data += value

    def _end_event(self) -> Iterator[bytes]:
        if self._data and not self._is_too_long:
            yield bytes(self._data[:-1])
        self._data.clear()
        self._is_too_long = False
