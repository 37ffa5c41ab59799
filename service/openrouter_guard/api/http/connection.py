"""One connection of a client, with limits.

uvicorn's own protocol accepts a request head of any size and at any pace, any number of headers, and as many requests
at once as fit into a packet. All of that fills this process' memory. Here a head and a body are limited in size and
time, one request is parsed at a time, and a client that exceeds a limit gets an error and is disconnected.
"""

from __future__ import annotations

import re
from asyncio import AbstractEventLoop, Future, Transport
from collections.abc import Callable
from math import inf
from typing import Any, cast
from weakref import WeakMethod

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .auth import OPEN_PATHS
from .concurrency import WHILE_THERE
from .connection_limits import ConnectionLimits
from .refusals import busy, refusal

__all__ = ["BODY_MAX_BYTES", "HEADERS_MAX", "HEAD_MAX_BYTES", "Connection"]

HEAD_MAX_BYTES = 64 * 1024
HEADERS_MAX = 128
BODY_MAX_BYTES = 2 * 1024 * 1024
"""Size as sent: the routes accept a body of half as much, and chunks have heads of their own."""
HEAD_S = 10.0
"""Time from the first byte of a request to the end of its head; for the first request, from the connection."""
REQUEST_S = 30.0
"""Time to the end of its body."""
STUCK_S = 10.0
"""A client that reads nothing of its answer for this long is disconnected."""
STOPPING_S = 1.0
"""A half-sent request or an unread answer delays the end of the process by this long."""
LINGER_S = 5.0
"""How long the rest of a refused request is read and discarded; without that, the client would not get the answer."""
PIPELINE_MAX = 4
WRITE_BYTES = 16 * 1024
_PIECE_BYTES = 16 * 1024
_SMALL_BYTES = 4096
_LINES_MAX = HEADERS_MAX + 2
_END = b"\r\n\r\n"
_blank_lines = cast("Callable[[bytes, int], re.Match[bytes]]", re.compile(rb"[\r\n]*").match)
_OPEN_PATHS = frozenset(path.encode() for path in OPEN_PATHS)
_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})
"""The rest of any other request is not read."""


# Progress of the request. Plain numbers, because they are compared several times for each request.
_IDLE, _HEAD, _BODY, _WHOLE = range(4)
_LONGEST_S = {_IDLE: inf, _HEAD: HEAD_S, _BODY: REQUEST_S, _WHOLE: inf}


class _TooMany(Exception):
    """The client sent more requests at once than are allowed."""


class _Flow(FlowControl):
    """Tells when more of a body is wanted; a strong reference back would be a circle, kept long after its end."""

    def __init__(self, transport: Transport, on_resume: WeakMethod[Callable[[], None]]) -> None:
        super().__init__(transport)
        self._on_resume = on_resume

    def resume_reading(self) -> None:
        super().resume_reading()
        if wanted := self._on_resume():
            wanted()


class _Quiet:
    """A transport for answers: it ignores writes after its end, without an error.

    uvloop's own raises if the client has gone before the protocol was notified.
    """

    __slots__ = ("_transport", "close", "is_closing")

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.close = transport.close
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if not self.is_closing():
            self._transport.write(data)


class Connection(HttpToolsProtocol):
    """uvicorn's protocol for HTTP/1.1, with limits.

    Attributes:
        held_bytes: Memory of the request that is not answered yet.
    """

    server_state: ConnectionLimits

    def __init__(
        self,
        config: Config,
        server_state: ConnectionLimits,
        app_state: dict[str, Any],
        _loop: AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.held_bytes = 0
        self._stage = _IDLE
        self._since = self._stuck_since = self.loop.time()
        self._head_bytes = self._head_lines = self._body_bytes = self._untold_bytes = 0
        self._unfed, self._at = b"", 0
        self._is_deaf = self._is_refused = False
        self._turn: Future[bool] | None = None
        self._extensions: dict[str, object] = {}

    # -- what the transport tells -------------------------------------------------------------------------------

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport, WeakMethod(self._wanted))
        self._quiet = _Quiet(transport)
        self._extensions[WHILE_THERE] = self._await_turn
        transport.set_write_buffer_limits(high=WRITE_BYTES)
        self.server_state.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._gone()

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        self._unset_keepalive_if_required()
        is_alone = self._stage == _IDLE and len(data) <= _SMALL_BYTES and data.find(_END) == len(data) - len(_END)
        if is_alone and data.count(b"\n") <= _LINES_MAX:
            # The usual case: one small head, complete.
            self._parse(data)
            self._since = self._since if self._stage == _WHOLE else self.loop.time()
            return
        if self._unfed:
            data = self._unfed[self._at :] + data
        self._feed(data, 0)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck_since = self.loop.time()
        self.server_state.stick(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.server_state.stuck.pop(self, None)

    # -- the parser ---------------------------------------------------------------------------------------------

    def _feed(self, data: bytes, at: int) -> None:
        """Give the parser one request; later ones wait until it is answered."""
        was_idle = self._stage == _IDLE
        while at < len(data) and not self._is_deaf and self._takes_more:
            at = self._fed(data, at)
        if at < len(data) and not self._is_deaf:
            self._unfed, self._at = data, at
            self.flow.pause_reading()
        elif self._unfed:
            self._unfed, self._at = b"", 0
        if was_idle and self._stage != _IDLE:
            self._since = self.loop.time()
        self._account()

    @property
    def _takes_more(self) -> bool:
        """Does nothing while a request waits for its answer, or a part of a body for its reader."""
        is_unread = self._stage == _BODY and not self.cycle.response_complete and len(self.cycle.body) >= _PIECE_BYTES
        return self._stage != _WHOLE and not is_unread

    def _wanted(self) -> None:
        if self._unfed and self._stage == _BODY and not self._is_deaf and self._takes_more:
            self._feed(self._unfed, self._at)

    def _fed(self, data: bytes, at: int) -> int:
        """Feed the head of a request, or a part of its body; return its end."""
        is_head = self._stage != _BODY
        if self._stage == _IDLE:
            at = _blank_lines(data, at).end()  # empty lines before a request; there may be many
            self._head_bytes = self._head_lines = 0
        if is_head:
            end = data.find(_END, at) + len(_END)
            end = end if end >= len(_END) + at else len(data)
        else:
            end = at + _PIECE_BYTES
        piece = data if not at and end >= len(data) else data[at:end]
        if self._is_within(piece, is_head=is_head):
            self._parse(piece)
        return at + len(piece)

    def _is_within(self, piece: bytes, *, is_head: bool) -> bool:
        """Return whether the request stays within its limits with one more piece; refuse it otherwise."""
        if is_head:
            self._head_bytes += len(piece)
            self._head_lines += piece.count(b"\n")
            if self._head_bytes > HEAD_MAX_BYTES or self._head_lines > _LINES_MAX:
                what = f"The head of a request may have {HEAD_MAX_BYTES:,} bytes and {HEADERS_MAX} headers"
                self._refuse(431, what, "sent a head that is too large")
        else:
            self._body_bytes += len(piece)
            self._untold_bytes += len(piece)
            # Bytes outside a body are the next head or meaningless: they may be no larger than a head.
            if self._body_bytes > BODY_MAX_BYTES or self._untold_bytes > HEAD_MAX_BYTES + _PIECE_BYTES:
                self._refuse(413, "The body is too large: send it in parts", "sent a body that is too large")
        return not self._is_deaf

    def _parse(self, piece: bytes) -> None:
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            # Ignore the offer to switch protocols; the bytes after this request belong to another protocol.
            self.cycle.keep_alive = False
            self._hang_up_after_answer()
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, _TooMany):
                self._hang_up_after_answer()
            else:
                self._refuse(400, "This is not an HTTP/1.1 request", "sent something other than HTTP")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._stage = _HEAD

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._stage != _HEAD:
            return  # a trailer, which nothing uses
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= PIPELINE_MAX:
            raise _TooMany
        if self.server_state.is_full and self.url.partition(b"?")[0] not in _OPEN_PATHS:
            self.app = busy
        elif self.app is busy:
            self.app = self.config.loaded_app
        super().on_headers_complete()
        cast("dict[str, Any]", self.scope)["extensions"] = self._extensions
        self.cycle.transport = cast("Transport", self._quiet)
        self._stage = _BODY
        self._body_bytes = self._untold_bytes = 0

    def _await_turn(self, turn: Future[bool]) -> None:
        self._turn = turn

    def on_body(self, body: bytes) -> None:
        self._untold_bytes = 0
        if self.scope["method"] in _WITH_BODY:
            super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self.cycle.response_complete:
            self._stage = _IDLE
            return
        self._stage = _WHOLE
        self.server_state.waiting.pop(self, None)
        self.server_state.answering.add(self)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.cycle.response_complete:
            return
        if self.cycle.body:
            self.cycle.body.clear()  # nothing reads the body any more
        if self._stage != _WHOLE:
            self._account()
            return
        self._stage = _IDLE
        self.server_state.answering.discard(self)
        self.server_state.waiting[self] = None
        if self.transport.is_closing():
            self._since = self.loop.time()
        elif self._unfed:
            self._unset_keepalive_if_required()
            self.server_state.queue(self)
        if self.held_bytes:
            self._account()

    def go_on(self) -> None:
        """Take the next of the requests that came at once."""
        if self._unfed and self._stage == _IDLE and not self._is_deaf and not self.transport.is_closing():
            self._feed(self._unfed, self._at)

    def _account(self) -> None:
        held_bytes = len(self._unfed)
        if self._stage == _HEAD:
            held_bytes += self._head_bytes
        elif self._stage >= _BODY and not self.cycle.response_complete and self.scope["method"] in _WITH_BODY:
            held_bytes += self._body_bytes  # the next owner keeps it until the answer
        elif self._stage == _BODY:
            held_bytes += self._untold_bytes
        if held_bytes != self.held_bytes:
            more_bytes, self.held_bytes = held_bytes - self.held_bytes, held_bytes
            self.server_state.hold(more_bytes)

    def look(self, now: float) -> None:
        """Disconnect a client that has exceeded its time."""
        waited_s = now - self._since
        if self in self.server_state.stuck:
            if now - self._stuck_since > STUCK_S:
                self.cut_off("did not take their answers")
        elif self._is_refused or self.transport.is_closing():
            if waited_s > LINGER_S:
                self._abort()
        elif not self._is_deaf and waited_s > _LONGEST_S[self._stage]:
            self._refuse(408, "The request took too long to send", "sent a request too slowly")
        elif self._stage == _IDLE and self.timeout_keep_alive_task is None and waited_s > HEAD_S:
            self.transport.close()

    def hurry(self, now: float, stopping_since: float) -> None:
        """Disconnect a client that has delayed the shutdown since ``stopping_since``."""
        is_stuck = self in self.server_state.stuck
        if self._stage == _WHOLE and not is_stuck:
            return
        since = self._stuck_since if is_stuck else self._since
        if now - max(since, stopping_since) <= STOPPING_S:
            return
        if self._stage == _BODY and not self._is_refused:
            self._refuse(503, "This replica stops: send the request again", "had not sent a request at the end")
            self.transport.close()
        else:
            self._abort()

    def cut_off(self, why: str) -> None:
        """Close it at once; *why* is one of a few phrases, for the log."""
        self.server_state.note(why)
        self._abort()

    def _abort(self) -> None:
        self._is_deaf = self._is_refused = True
        self._gone()
        self.transport.abort()

    def _gone(self) -> None:
        # Before the transport reports it: a thousand other clients may be served first.
        self._unset_keepalive_if_required()  # the base class does not after a reset, and the timer holds all of this
        self._unfed, self.headers, self.url = b"", [], b""
        self._extensions[WHILE_THERE] = _drop_turn  # and no longer a circle
        if self.cycle is not None:
            self.cycle.body.clear()
            self.cycle.disconnected = True  # later writes go nowhere
            self.cycle.message_event.set()
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(False)  # its request has not begun
        self.parser = None  # type: ignore[assignment]  # as the base class does
        self.server_state.leave(self)
        if self.held_bytes:
            self.server_state.held_bytes -= self.held_bytes
            self.held_bytes = 0

    def _refuse(self, status_code: int, detail: str, why: str) -> None:
        """Answer if possible, and accept nothing more."""
        self.server_state.note(why)
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if self._stage != _BODY or cycle.response_started or self.pipeline:
                self._hang_up_after_answer()
                return
            # The reader of this body learns that the client has gone, and answers nothing.
            cycle.disconnected = True
            cycle.message_event.set()
        self._is_deaf = self._is_refused = True
        self._since = self.loop.time()
        if not self.transport.is_closing():
            self.transport.write(refusal(status_code, detail))
            self.transport.write_eof()
            self.flow.resume_reading()

    def _hang_up_after_answer(self) -> None:
        self._is_deaf = True
        self.cycle.keep_alive = False


def _drop_turn(turn: Future[bool]) -> None:
    turn.set_result(False)
