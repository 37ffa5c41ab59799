"""Runs the health service until a signal."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import cast

import prometheus_client
import uvicorn
from starlette.types import ASGIApp

from openrouter_guard.background import cancelled
from openrouter_guard.errors import ConfigurationError
from openrouter_guard.settings import Settings, api_key_variable
from openrouter_guard.tls import RenewedContext

from .app import create_app
from .http.acceptor import Acceptor
from .http.connection import Connection
from .http.connection_limits import ARRIVING_MAX, CONNECTIONS_MAX, RESERVE, ConnectionLimits

__all__ = ["Server", "configured", "listening", "serve"]

logger = logging.getLogger(__name__)

STOP_S = 5
"""How long answers may take after the signal to stop."""
BACKLOG = 2048
DEAF_MS = 30_000
"""The system disconnects a client that reads nothing for this long."""
SENT_BYTES, TAKEN_BYTES = 128 * 1024, 16 * 1024
"""The system's buffers of one connection, for sending and for receiving.

Received bytes are read at once, of a thousand clients before one is answered, so they fill this process' memory.
"""
OTHER_FILES = 128 + ARRIVING_MAX
"""Open files besides the clients' connections, with those that are not made yet."""
_TICKS = 10
_TICKS_TO_RENEW = 100
"""A certificate that is renewed is served within ten seconds."""
_HURRY_S = 0.1
_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux


class Server(uvicorn.Server):
    """Signals the shutdown before it waits for the requests; the lifespan would signal it only afterwards."""

    def __init__(
        self, config: uvicorn.Config, on_stop: Callable[[], None], tls: RenewedContext | None = None
    ) -> None:
        super().__init__(config)
        self.server_state = self.limits = ConnectionLimits(min(CONNECTIONS_MAX, _files_max() - RESERVE - OTHER_FILES))
        self._on_stop = on_stop
        self._tls = tls

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        # At the end, uvicorn closes them as it would close its own.
        self.servers = cast("list[asyncio.Server]", [self._acceptor(each) for each in sockets or ()])

    def _acceptor(self, listener: socket.socket) -> Acceptor:
        tls = self._tls.context if self._tls else None
        return Acceptor(listener, self._protocol, self.limits, tls)

    def _protocol(self) -> Connection:
        return Connection(self.config, self.limits, self.lifespan.state)

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS == 0:  # it runs ten times a second
            self.limits.look(asyncio.get_running_loop().time())
        if self._tls and counter % _TICKS_TO_RENEW == 0:
            self._tls.look()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_stop()
        hurrying = asyncio.create_task(self._hurry())
        await super().shutdown(sockets)
        await cancelled(hurrying)

    async def _hurry(self) -> None:
        loop = asyncio.get_running_loop()
        stopping_since = loop.time()
        while True:
            await asyncio.sleep(_HURRY_S)
            self.limits.hurry(loop.time(), stopping_since)


def serve(settings: Settings, host: str, port: int) -> int:
    """Serve on ``host:port``; return an exit status after SIGINT or SIGTERM.

    Raises:
        ConfigurationError: If a setting, the certificate, the host or the port cannot be used.
    """
    # Skip the second series for each counter, which has no use here.
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    tls = RenewedContext(settings.certificate) if settings.certificate else None
    app = create_app(settings)
    server = Server(configured(app), on_stop=app.state.scopes.drain, tls=tls)
    with listening(host, port) as listener:
        url = _url(listener, "https" if tls else "http")
        logger.info("running on %s %s", url, _about(settings, app.state.scopes.default.store.address))
        for each in settings.for_each_scope():
            if not each.api_key:
                name = api_key_variable(each.scope, is_further=each.scope != settings.scope)
                logger.warning("%s is not set: scope %s shows only the reports of its workers", name, each.scope)
        server.run(sockets=[listener])
    return 0 if server.started else 1


def _about(settings: Settings, redis: str) -> str:
    """The first line of the log, for troubleshooting; holds no secret."""
    scopes = ", ".join(
        f"scope {each.scope} with{'' if each.api_key else 'out'} an API key" for each in settings.for_each_scope()
    )
    reading = "with a token" if settings.tokens.read else "open to all"
    writing = "with a token" if settings.tokens.write else "off"
    return f"for {scopes}; Redis at {redis}; reading is {reading}, writing is {writing}"


def configured(app: ASGIApp) -> uvicorn.Config:
    """Return the server's configuration for *app*."""
    return uvicorn.Config(
        app,
        http=Connection,
        lifespan="on",
        ws="none",
        # The caller sets up logging; /metrics replaces a line per request.
        log_config=None,
        access_log=False,
        server_header=False,
        # Nothing here depends on the client, or on how it addressed a proxy.
        proxy_headers=False,
        timeout_graceful_shutdown=STOP_S,
    )


def listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sends small pieces at once; else each answer would wait 40 ms for the client.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for buffer, size in ((socket.SO_RCVBUF, TAKEN_BYTES), (socket.SO_SNDBUF, SENT_BYTES)):
        listener.setsockopt(socket.SOL_SOCKET, buffer, size)
    if _USER_TIMEOUT is not None:
        # Its connections inherit it: a connection whose client reads nothing would stay half-closed for ever.
        listener.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, DEAF_MS)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigurationError(f"cannot listen on {host}, port {port}: {error}; choose --host and --port") from None
    return listener


def _files_max() -> int:
    """Return the number of files this process may have open, after raising a low limit."""
    wanted = CONNECTIONS_MAX + RESERVE + OTHER_FILES
    try:
        import resource
    except ImportError:  # not on Unix
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(resource.getrlimit(resource.RLIMIT_NOFILE)[0], RESERVE + 2 * OTHER_FILES)


def _url(listener: socket.socket, scheme: str) -> str:
    host, port, *_ = listener.getsockname()
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
