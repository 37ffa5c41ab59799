"""Reads the first bytes of an answer before its reader asks for them, and holds nobody: the time is bounded.

A blocking read cannot be given up without losing what it reads. So a thread makes it: who waits goes on when the time
is over, and finds what the thread has read when it reads itself.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

__all__ = ["LOOK_S", "Ahead"]

LOOK_S = 1.0
"""So long the body of an error is waited for, before the answer is handed on."""
_WAKES_S = 0.2
_HTTP_1 = (b"HTTP/1.1", b"HTTP/1.0")


class Ahead:
    """The first bytes of one answer, up to a bound.

    Args:
        pieces: Of the body. Nobody else may ask for one before :meth:`rest` has ended.
        most_bytes: When so much is read, no more is asked for.
        extensions: Of the answer: with the connection, where the HTTP library tells it.
    """

    def __init__(self, pieces: Iterator[bytes], most_bytes: int, extensions: Any = None) -> None:
        self._pieces = pieces
        self._most_bytes = most_bytes
        self._extensions = extensions if isinstance(extensions, dict) else {}
        self._read: SimpleQueue[bytes | BaseException | None] = SimpleQueue()
        self._is_over = self._has_ended = False
        self._thread = threading.Thread(target=self._run, name="openrouter-guard-ahead", daemon=True)

    def within(self, seconds: float) -> Iterator[bytes]:
        """What comes in that time.

        Raises:
            Exception: What reading raised.
        """
        until_s = monotonic() + seconds
        try:
            self._thread.start()
        except RuntimeError:
            # There can be no more threads: then it is read by who wants it.
            self._has_ended = True
        while not self._has_ended:
            try:
                piece = self._taken(max(until_s - monotonic(), 0.0))
            except Empty:
                break
            if piece is not None:
                yield piece
        self._is_over = True

    def rest(self) -> Iterator[bytes]:
        """What was read since, and what is being read.

        Raises:
            Exception: What reading raised.
        """
        while not self._has_ended:
            piece = self._taken(None)
            if piece is not None:
                yield piece

    def close(self) -> None:
        """End the read that is under way, if it can be: the connection is given up."""
        self._is_over = True
        if self._has_ended or not self._thread.is_alive():
            return
        if self._extensions.get("http_version") in _HTTP_1:
            with suppress(Exception):
                # Not by its own method: that of TLS would wait for the other side.
                socket.socket.shutdown(self._extensions["network_stream"].get_extra_info("socket"), socket.SHUT_RDWR)
                self._thread.join(_WAKES_S)

    def _taken(self, timeout_s: float | None) -> bytes | None:
        piece = self._read.get(timeout=timeout_s)
        self._has_ended = not isinstance(piece, bytes)
        if isinstance(piece, BaseException):
            raise piece
        return piece

    def _run(self) -> None:
        size = 0
        try:
            while not self._is_over and size < self._most_bytes:
                piece = next(self._pieces, None)
                if piece is None:
                    break
                size += len(piece)
                self._read.put(piece)
        except BaseException as error:  # noqa: BLE001  it is raised where the caller reads
            self._read.put(error)
        else:
            self._read.put(None)
