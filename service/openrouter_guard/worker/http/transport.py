"""A guarded call as an HTTP exchange, shared by the transports for HTTP clients.

The call ends with the answer's last byte. An error status ends it at once: clients that retry leave such an answer
unread, and some never close it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import chain
from time import monotonic
from typing import Any, Protocol, TypeVar

from openrouter_guard.rules.signals import NEUTRAL, Signal
from openrouter_guard.worker.call import Call
from openrouter_guard.worker.classification.classify import classify_exception
from openrouter_guard.worker.classification.response_inspector import KEPT_BYTES, READABLE_ENCODING, ResponseInspector
from openrouter_guard.worker.guard import AsyncGuard, Guard

from .read_ahead import LOOK_S, Ahead
from .request_model import model_in

__all__ = ["AsyncBody", "Body", "send", "send_async"]

_JSON = "application/json"
_CALL = re.compile(
    r"/(?:chat/completions|completions|responses|messages|embeddings|rerank|moderations|classifications|decisions|systemone"
    r"|images(?:/(?:generations|edits|variations))?|videos|audio/(?:speech|transcriptions|translations))/*$",
    re.IGNORECASE,
)
"""Paths that call a model, below any base path: ``/api/v1``, a preset, a gateway's own."""


class _Request(Protocol):
    @property
    def method(self) -> str: ...
    @property
    def url(self) -> Any: ...
    @property
    def headers(self) -> Any: ...
    @property
    def content(self) -> bytes: ...


class _Response(Protocol):
    stream: Any

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Any: ...
    @property
    def is_closed(self) -> bool: ...


Request = TypeVar("Request", bound=_Request)
Response = TypeVar("Response", bound=_Response)


def send(guard: Guard, request: Request, through: Callable[[Request], Response], body_of: type[Body]) -> Response:
    """Send a request, guarded if it is a call.

    Args:
        guard: The guard.
        request: A request of ``httpx`` or ``httpx2``.
        through: Sends the request.
        body_of: The subclass of :class:`Body` for the client.

    Raises:
        CallNotPermitted: If it is a call, and calls or those to its model are paused.
    """
    if not _is_call(request):
        return through(request)
    exchange = Exchange(guard.call(_model_of(request)).__enter__())
    _with_readable_encoding(request)
    try:
        response = through(request)
    except BaseException as error:
        exchange.failed(error)
        raise
    response.stream = body = body_of(response, exchange, _reading(request, response))
    body.look_ahead(is_whole=response.is_closed)
    return response


async def send_async(
    guard: AsyncGuard, request: Request, through: Callable[[Request], Awaitable[Response]], body_of: type[AsyncBody]
) -> Response:
    """Send a request, guarded if it is a call; see :func:`send`."""
    if not _is_call(request):
        return await through(request)
    exchange = Exchange(await guard.call(_model_of(request)).__aenter__())
    _with_readable_encoding(request)
    try:
        response = await through(request)
    except BaseException as error:
        exchange.failed(error)
        raise
    response.stream = body = body_of(response, exchange, _reading(request, response))
    await body.look_ahead(is_whole=response.is_closed)
    return response


def _is_call(request: _Request) -> bool:
    """Return whether it calls a model; lists of models, keys and credits do not."""
    return request.method == "POST" and _CALL.search(request.url.path) is not None


def _model_of(request: _Request) -> str | None:
    """Return the model that it names; None if it cannot be found."""
    if not request.headers.get("content-type", "").lower().startswith(_JSON):
        return None
    try:
        return model_in(request.content)
    except RuntimeError:
        # A stream is read by the client that sends it.
        return None


def _reading(request: _Request, response: _Response) -> ResponseInspector:
    """Sound has no recognisable form, and speech may be transcribed as text."""
    is_json_due = "/audio/" not in request.url.path.lower()
    return ResponseInspector(response.status_code, response.headers, is_json_due=is_json_due)


def _with_readable_encoding(request: _Request) -> None:
    """Request no compression that would hide an error from the guard."""
    if request.headers.get("accept-encoding", "identity") != "identity":
        request.headers["accept-encoding"] = READABLE_ENCODING


class Exchange:
    """One admitted call; it ends once, whichever end comes first."""

    def __init__(self, call: Call) -> None:
        self._call: Call | None = call

    def failed(self, error: BaseException) -> None:
        """No answer came."""
        self._end(lambda now: classify_exception(error, now=now))

    def ended(self, reading: ResponseInspector) -> None:
        """The answer is complete."""
        self._end(reading.signal)

    def broke(self, reading: ResponseInspector, error: BaseException) -> None:
        """The answer broke off."""
        self._end(reading.signal if reading.is_decided else lambda now: classify_exception(error, now=now))

    def closed(self, reading: ResponseInspector) -> None:
        """The caller leaves the answer: unless it was complete, that is neither a success nor a failure."""
        self._end(reading.signal if reading.is_decided else lambda _: NEUTRAL)

    def _end(self, says: Callable[[float], Signal]) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.end(lambda: says(call.now))


class _Body:
    def __init__(self, response: _Response, exchange: Exchange, reading: ResponseInspector) -> None:
        self._stream = response.stream
        self._extensions = getattr(response, "extensions", None)
        self._exchange = exchange
        self._reading = reading
        self._ahead: list[bytes] = []
        self._broken: Exception | None = None

    @property
    def _wants_more(self) -> bool:
        return self._reading.is_refusal and not self._reading.is_full

    def _look_at(self, piece: bytes) -> None:
        self._ahead.append(piece)
        self._reading.feed(piece)

    def _looked(self, *, is_whole: bool) -> None:
        if is_whole or self._reading.is_refusal:
            self._exchange.ended(self._reading)


class Body(_Body):
    """The bytes of an answer, passed on as they come."""

    def __init__(self, response: _Response, exchange: Exchange, reading: ResponseInspector) -> None:
        super().__init__(response, exchange, reading)
        self._pieces = iter(self._stream)
        self._reader: Ahead | None = None

    def look_ahead(self, *, is_whole: bool) -> None:
        """Read the body of an error at once, within limits of size and time; do nothing for other answers.

        Args:
            is_whole: The answer has been read already, as with a cache or a mock: it is not read again.
        """
        try:
            for piece in self._pieces if is_whole else self._first_pieces():
                self._look_at(piece)
        except Exception as error:  # noqa: BLE001  it is raised where the caller reads
            self._broken = error
        except BaseException:
            self.close()
            raise
        self._looked(is_whole=is_whole)

    def __iter__(self) -> Iterator[bytes]:
        yield from self._ahead
        if self._broken is not None:
            raise self._broken
        try:
            for piece in chain(self._reader.rest() if self._reader else (), self._pieces):
                self._reading.feed(piece)
                yield piece
        except Exception as error:
            self._exchange.broke(self._reading, error)
            raise
        self._exchange.ended(self._reading)

    def close(self) -> None:
        try:
            if self._reader is not None:
                self._reader.close()
            self._stream.close()
        finally:
            self._exchange.closed(self._reading)

    def _first_pieces(self) -> Iterator[bytes]:
        if self._wants_more:
            self._reader = Ahead(self._pieces, KEPT_BYTES, self._extensions)
            yield from self._reader.within(LOOK_S)


class AsyncBody(_Body):
    """The bytes of an answer, passed on as they come."""

    def __init__(self, response: _Response, exchange: Exchange, reading: ResponseInspector) -> None:
        super().__init__(response, exchange, reading)
        self._pieces = aiter(self._stream)
        self._next: asyncio.Task[bytes | None] | None = None

    async def look_ahead(self, *, is_whole: bool) -> None:
        """Read the body of an error at once, within limits of size and time; do nothing for other answers.

        Args:
            is_whole: The answer has been read already, as with a cache or a mock: it is not read again.
        """
        try:
            async for piece in self._pieces if is_whole else self._first_pieces():
                self._look_at(piece)
        except Exception as error:  # noqa: BLE001  it is raised where the caller reads
            self._broken = error
        except BaseException:
            await self.aclose()
            raise
        self._looked(is_whole=is_whole)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._ahead:
            yield piece
        if self._broken is not None:
            raise self._broken
        try:
            async for piece in self._rest():
                self._reading.feed(piece)
                yield piece
        except Exception as error:
            self._exchange.broke(self._reading, error)
            raise
        self._exchange.ended(self._reading)

    async def aclose(self) -> None:
        try:
            if self._next is not None and self._next.cancel():
                await asyncio.wait((self._next,))
            await self._stream.aclose()
        finally:
            self._exchange.closed(self._reading)

    async def _first_pieces(self) -> AsyncIterator[bytes]:
        until = monotonic() + LOOK_S
        while self._wants_more:
            # A cancelled read would end the connection, so it goes on for the reader of the body.
            self._next = reading = asyncio.create_task(self._piece())
            reading.add_done_callback(_retrieved)
            await asyncio.wait((reading,), timeout=max(until - monotonic(), 0.0))
            piece = reading.result() if reading.done() else None
            if piece is None:
                return
            self._next = None
            yield piece

    async def _rest(self) -> AsyncIterator[bytes]:
        reading, self._next = self._next, None
        if reading is not None and (piece := await reading) is not None:
            yield piece
        async for piece in self._pieces:
            yield piece

    async def _piece(self) -> bytes | None:
        return await anext(self._pieces, None)


def _retrieved(reading: asyncio.Task[bytes | None]) -> None:
    """The reader of the body sees its exception; there may be no reader."""
    if not reading.cancelled():
        reading.exception()
