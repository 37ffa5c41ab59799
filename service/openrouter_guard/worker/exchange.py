"""A guarded call in the shape of an HTTP exchange: what the transports for HTTP clients share.

The call ends with the answer's last byte. An answer whose status is an error ends it at once: clients that try again
leave such an answer unread, and some never close it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

from openrouter_guard.rules.signals import NEUTRAL, Signal

from .asked import model_in
from .guard import AsyncGuard, Call, Guard
from .observe import of_exception
from .reading import READABLE_ENCODING, Reading

__all__ = ["AsyncBody", "Body", "send", "send_async"]

_JSON = "application/json"
_CALL = re.compile(
    r"/(?:chat/completions|completions|responses|messages|embeddings|rerank|moderations|classifications|decisions|systemone"
    r"|images(?:/(?:generations|edits|variations))?|videos|audio/(?:speech|transcriptions|translations))/*$",
    re.IGNORECASE,
)
"""What asks a model for something, below any base path: ``/api/v1``, a preset, a gateway's own."""


class _Stream(Protocol):
    def close(self) -> None: ...
    def __iter__(self) -> Iterator[bytes]: ...


class _AsyncStream(Protocol):
    async def aclose(self) -> None: ...
    def __aiter__(self) -> AsyncIterator[bytes]: ...


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
        guard: Asked before, told afterwards.
        request: Of ``httpx`` or its like.
        through: What sends.
        body_of: The form of :class:`Body` that the client takes.

    Raises:
        CallNotPermitted: If it is a call, while calls are paused, or those to its model.
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
    response.stream = body = body_of(response.stream, exchange, response.status_code, response.headers)
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
    response.stream = body = body_of(response.stream, exchange, response.status_code, response.headers)
    await body.look_ahead(is_whole=response.is_closed)
    return response


def _is_call(request: _Request) -> bool:
    """Whether it asks a model for something; lists of models, keys and credits say nothing about that."""
    return request.method == "POST" and _CALL.search(request.url.path) is not None


def _model_of(request: _Request) -> str | None:
    """The model that it names; None where that is not to be seen."""
    if not request.headers.get("content-type", "").lower().startswith(_JSON):
        return None
    try:
        return model_in(request.content)
    except RuntimeError:
        # A stream: that is read by who sends it.
        return None


def _with_readable_encoding(request: _Request) -> None:
    """Ask for no compression that could hide an error from us."""
    if request.headers.get("accept-encoding", "identity") != "identity":
        request.headers["accept-encoding"] = READABLE_ENCODING


class Exchange:
    """One call that has been let through; ends once, whoever ends it first."""

    def __init__(self, call: Call) -> None:
        self._call: Call | None = call

    def failed(self, error: BaseException) -> None:
        """No answer came."""
        self._end(lambda now_s: of_exception(error, now_s=now_s))

    def ended(self, reading: Reading) -> None:
        """The answer is there as a whole."""
        self._end(reading.signal)

    def broke(self, reading: Reading, error: BaseException) -> None:
        """The answer ended in the middle."""
        self._end(reading.signal if reading.is_decided else lambda now_s: of_exception(error, now_s=now_s))

    def closed(self, reading: Reading) -> None:
        """The caller wants no more of it: unless all was said, that is no success and no failure."""
        self._end(reading.signal if reading.is_decided else lambda _: NEUTRAL)

    def _end(self, says: Callable[[float], Signal]) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.end(lambda: says(call.now_s))


class _Body:
    def __init__(self, exchange: Exchange, status_code: int, headers: Mapping[str, str]) -> None:
        self._exchange = exchange
        self._reading = Reading(status_code, headers)
        self._ahead: list[bytes] = []
        self._broken: Exception | None = None

    def _wants_more(self, *, is_whole: bool) -> bool:
        return is_whole or (self._reading.is_refusal and not self._reading.is_full)

    def _look_at(self, piece: bytes) -> None:
        self._ahead.append(piece)
        self._reading.feed(piece)

    def _looked(self, *, is_whole: bool) -> None:
        if is_whole or self._reading.is_refusal:
            self._exchange.ended(self._reading)


class Body(_Body):
    """The bytes of an answer, passed on as they come."""

    def __init__(self, stream: _Stream, exchange: Exchange, status_code: int, headers: Mapping[str, str]) -> None:
        super().__init__(exchange, status_code, headers)
        self._stream = stream
        self._pieces = iter(stream)

    def look_ahead(self, *, is_whole: bool) -> None:
        """Read the body of an error at once, up to a bound; of other answers nothing.

        Args:
            is_whole: The answer has been read, as of a cache or a mock: nobody will read it again.
        """
        try:
            while self._wants_more(is_whole=is_whole) and (piece := next(self._pieces, None)) is not None:
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
            for piece in self._pieces:
                self._reading.feed(piece)
                yield piece
        except Exception as error:
            self._exchange.broke(self._reading, error)
            raise
        self._exchange.ended(self._reading)

    def close(self) -> None:
        try:
            self._stream.close()
        finally:
            self._exchange.closed(self._reading)


class AsyncBody(_Body):
    """The bytes of an answer, passed on as they come."""

    def __init__(
        self, stream: _AsyncStream, exchange: Exchange, status_code: int, headers: Mapping[str, str]
    ) -> None:
        super().__init__(exchange, status_code, headers)
        self._stream = stream
        self._pieces = aiter(stream)

    async def look_ahead(self, *, is_whole: bool) -> None:
        """Read the body of an error at once, up to a bound; of other answers nothing.

        Args:
            is_whole: The answer has been read, as of a cache or a mock: nobody will read it again.
        """
        try:
            while self._wants_more(is_whole=is_whole) and (piece := await anext(self._pieces, None)) is not None:
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
            async for piece in self._pieces:
                self._reading.feed(piece)
                yield piece
        except Exception as error:
            self._exchange.broke(self._reading, error)
            raise
        self._exchange.ended(self._reading)

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            self._exchange.closed(self._reading)
