"""Guards a whole ``httpx`` client: every call that it makes to OpenRouter, and nothing else that it sends.

    client = httpx.Client(transport=GuardedTransport(guard))

Nothing else in the worker needs to change: while calls are paused, the client raises ``CallNotPermitted`` and sends
nothing. Do not use ``guard.call()`` around the same calls: they would count twice.
"""

from __future__ import annotations

import httpx

from .worker.guard import AsyncGuard, Guard
from .worker.http.transport import AsyncBody, Body, send, send_async

__all__ = ["AsyncGuardedTransport", "GuardedTransport"]


class _Body(Body, httpx.SyncByteStream):
    pass


class _AsyncBody(AsyncBody, httpx.AsyncByteStream):
    pass


class GuardedTransport(httpx.BaseTransport):
    """For ``httpx.Client``.

    Args:
        guard: The guard; it stays open when the client closes.
        transport: Sends the requests; by default an ``httpx.HTTPTransport``. Set a proxy there.
    """

    def __init__(self, guard: Guard, transport: httpx.BaseTransport | None = None) -> None:
        self._guard = guard
        self._transport = transport or httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request.

        Raises:
            CallNotPermitted: If it is a call, and calls or those to its model are paused.
        """
        return send(self._guard, request, self._transport.handle_request, _Body)

    def close(self) -> None:
        self._transport.close()


class AsyncGuardedTransport(httpx.AsyncBaseTransport):
    """For ``httpx.AsyncClient``; see :class:`GuardedTransport`."""

    def __init__(self, guard: AsyncGuard, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._guard = guard
        self._transport = transport or httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request.

        Raises:
            CallNotPermitted: If it is a call, and calls or those to its model are paused.
        """
        return await send_async(self._guard, request, self._transport.handle_async_request, _AsyncBody)

    async def aclose(self) -> None:
        await self._transport.aclose()
