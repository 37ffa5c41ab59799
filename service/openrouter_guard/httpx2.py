"""Guards a whole ``httpx2`` client: every call that it makes to OpenRouter, and nothing else that it sends.

    client = httpx2.Client(transport=GuardedTransport(guard))

Nothing else in the worker needs to change: while calls are paused, the client raises ``CallNotPermitted`` and sends
nothing. Do not use ``guard.call()`` around the same calls: they would count twice.
"""

from __future__ import annotations

import httpx2

from .worker.guard import AsyncGuard, Guard
from .worker.http.transport import AsyncBody, Body, send, send_async

__all__ = ["AsyncGuardedTransport", "GuardedTransport"]


class _Body(Body, httpx2.SyncByteStream):
    pass


class _AsyncBody(AsyncBody, httpx2.AsyncByteStream):
    pass


class GuardedTransport(httpx2.BaseTransport):
    """For ``httpx2.Client``.

    Args:
        guard: The guard; it stays open when the client closes.
        transport: Sends the requests; by default an ``httpx2.HTTPTransport``. Set a proxy there.
    """

    def __init__(self, guard: Guard, transport: httpx2.BaseTransport | None = None) -> None:
        self._guard = guard
        self._transport = transport or httpx2.HTTPTransport()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send the request.

        Raises:
            CallNotPermitted: If it is a call, and calls or those to its model are paused.
        """
        return send(self._guard, request, self._transport.handle_request, _Body)

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
            CallNotPermitted: If it is a call, and calls or those to its model are paused.
        """
        return await send_async(self._guard, request, self._transport.handle_async_request, _AsyncBody)

    async def aclose(self) -> None:
        await self._transport.aclose()
