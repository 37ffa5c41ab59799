"""Guards a whole ``httpx2`` client: every call that it makes to OpenRouter, and nothing else that it sends.

    client = httpx2.Client(transport=GuardedTransport(guard))

Nothing else in the worker needs to change: while calls are paused, the client raises ``CallNotPermitted`` and sends
nothing. Do not use ``guard.call()`` around the same calls: they would count twice.
"""

from __future__ import annotations

from typing import cast

import httpx2

from .worker.exchange import AsyncBody, Body, Exchange, is_call, with_readable_encoding
from .worker.guard import AsyncGuard, Guard

__all__ = ["AsyncGuardedTransport", "GuardedTransport"]


class _Body(Body, httpx2.SyncByteStream):
    pass


class _AsyncBody(AsyncBody, httpx2.AsyncByteStream):
    pass


class GuardedTransport(httpx2.BaseTransport):
    """For ``httpx2.Client``.

    Args:
        guard: It stays open when the client closes.
        transport: What sends; by default an ``httpx2.HTTPTransport``. A proxy is set there.
    """

    def __init__(self, guard: Guard, transport: httpx2.BaseTransport | None = None) -> None:
        self._guard = guard
        self._transport = transport or httpx2.HTTPTransport()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send the request.

        Raises:
            CallNotPermitted: If it is a call, while calls are paused.
        """
        if not is_call(request.method, request.url.path):
            return self._transport.handle_request(request)
        exchange = Exchange(self._guard.call().__enter__())
        with_readable_encoding(request)
        try:
            response = self._transport.handle_request(request)
        except BaseException as error:
            exchange.failed(error)
            raise
        stream = cast("httpx2.SyncByteStream", response.stream)
        body = _Body(stream, exchange, response.status_code, response.headers)
        response.stream = body
        body.look_ahead(is_whole=response.is_closed)
        return response

    def close(self) -> None:
        self._transport.close()


class AsyncGuardedTransport(httpx2.AsyncBaseTransport):
    """For ``httpx2.AsyncClient``; see :class:`GuardedTransport`."""

    def __init__(self, guard: AsyncGuard, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self._guard = guard
        self._transport = transport or httpx2.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send the request.

        Raises:
            CallNotPermitted: If it is a call, while calls are paused.
        """
        if not is_call(request.method, request.url.path):
            return await self._transport.handle_async_request(request)
        exchange = Exchange(await self._guard.call().__aenter__())
        with_readable_encoding(request)
        try:
            response = await self._transport.handle_async_request(request)
        except BaseException as error:
            exchange.failed(error)
            raise
        stream = cast("httpx2.AsyncByteStream", response.stream)
        body = _AsyncBody(stream, exchange, response.status_code, response.headers)
        response.stream = body
        await body.look_ahead(is_whole=response.is_closed)
        return response

    async def aclose(self) -> None:
        await self._transport.aclose()
