"""Reads the first bytes of an answer ahead of its reader, within a time limit.

A blocking read cannot be abandoned without losing its data. So a thread makes it: the caller goes on when the time is
over, and later receives the data that the thread has read.
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
"""How long to wait for the body of an error before the answer is handed on."""
_WAKES_S = 0.2
_HTTP_1 = (b"HTTP/1.1", b"HTTP/1.0")


class Ahead:
    """The first bytes of one answer, up to a limit.

    Args:
        pieces: Pieces of the body. No other reader may use it before :meth:`rest` has ended.
        most_bytes: Limit of the bytes to read.
        extensions: Extensions of the answer; they hold the connection if the HTTP library provides it.
    """

    def __init__(self, pieces: Iterator[bytes], most_bytes: int, extensions: Any = None) -> None:
        self._pieces = pieces
        self._most_bytes = most_bytes
        self._extensions = extensions if isinstance(extensions, dict) else {}
        self._read: SimpleQueue[bytes | BaseException | None] = SimpleQueue()
        self._is_over = self._has_ended = False
        self._thread = threading.Thread(target=self._run, name="openrouter-guard-ahead", daemon=True)

    def within(self, seconds: float) -> Iterator[bytes]:
        """Return the bytes that arrive in that time.

        Raises:
            Exception: The error of the read.
        """
        until = monotonic() + seconds
        try:
            self._thread.start()
        except RuntimeError:
            # No thread can be started: then the reader reads it itself.
            self._has_ended = True
        while not self._has_ended:
            try:
                piece = self._taken(max(until - monotonic(), 0.0))
            except Empty:
                break
            if piece is not None:
                yield piece
        self._is_over = True

    def rest(self) -> Iterator[bytes]:
        """Yield the bytes read since, including the read in progress.

        Raises:
            Exception: The error of the read.
        """
        while not self._has_ended:
            piece = self._taken(None)
            if piece is not None:
                yield piece

    def close(self) -> None:
        """End the running read if possible: the connection is abandoned."""
        self._is_over = True
        if self._has_ended or not self._thread.is_alive():
            return
        if self._extensions.get("http_version") in _HTTP_1:
            with suppress(Exception):
                # Not by its own method, which for TLS would wait for the other side.
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
