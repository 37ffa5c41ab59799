"""Accepts connections, and limits those that are not made yet: with TLS, their handshake comes first.

uvloop accepts one connection in each round of the event loop. A probe would wait for as many rounds as clients came
before it, and each of these rounds answers some of them. Here a round accepts many.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack, suppress

from openrouter_guard.log_once import LogOnce

from .connection import HEAD_S, Connection
from .connection_limits import ConnectionLimits

__all__ = ["Acceptor"]

A_ROUND = 64
"""Connections that one round of the event loop accepts."""
HANDSHAKE_S = HEAD_S
"""Time from the connection to the end of its TLS handshake."""
CLOSING_S = 1.0
"""Time for the other side's part at the end of TLS."""
FULL_S = 0.1
"""Time until the next try, where the system gives this process no more files or memory."""


class Acceptor:
    """Accepts the connections of one listening socket, as uvicorn's servers do.

    Args:
        listener: Where clients connect.
        protocol: Makes the protocol of one connection.
        limits: The connections of this process.
        tls: How to shake hands; None: no TLS.
    """

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[], Connection],
        limits: ConnectionLimits,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._protocol = protocol
        self._limits = limits
        self._tls = tls
        self._full = LogOnce("no connection can be accepted", "connections are accepted again")
        self._loop = asyncio.get_running_loop()
        self._resuming: asyncio.TimerHandle | None = None
        self._resume()

    def close(self) -> None:
        """Accept nothing more, and close what is not made yet."""
        self._pause()
        if self._resuming:
            self._resuming.cancel()
        self._limits.turn_away()

    async def wait_closed(self) -> None:
        """Return at once, since nothing is left to wait for."""

    def _resume(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _pause(self) -> None:
        self._loop.remove_reader(self._listener)

    def _accept(self) -> None:
        try:
            for _ in range(A_ROUND):
                client, _ = self._listener.accept()
                self._enter(client)
        except (BlockingIOError, ConnectionAbortedError):
            pass
        except Exception as error:  # noqa: BLE001  nobody could connect any more
            self._full.failed(error)
            self._pause()
            self._resuming = self._loop.call_later(FULL_S, self._resume)
            return
        self._full.worked()

    def _enter(self, client: socket.socket) -> None:
        client.setblocking(False)
        protocol = self._protocol()
        unmade = ExitStack()
        unmade.enter_context(client)
        making = self._loop.create_task(self._make(client, protocol, unmade))
        making.add_done_callback(lambda _: unmade.close())  # it may have been cancelled before it began
        self._limits.arrive(protocol, making)

    async def _make(self, client: socket.socket, protocol: Connection, unmade: ExitStack) -> None:
        with suppress(OSError):  # it has gone, takes too long, or does not speak TLS
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            unmade.pop_all()  # from here on, its transport closes it
            await self._loop.connect_accepted_socket(
                lambda: protocol,
                client,
                ssl=self._tls,
                ssl_handshake_timeout=HANDSHAKE_S if self._tls else None,
                ssl_shutdown_timeout=CLOSING_S if self._tls else None,
            )
