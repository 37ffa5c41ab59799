"""Runs the health service until a signal."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

import prometheus_client
import uvicorn

from openrouter_guard.errors import ConfigurationError
from openrouter_guard.settings import Settings, api_key_variable

from .app import create_app

__all__ = ["Server", "listening", "serve"]

logger = logging.getLogger(__name__)

STOP_S = 5
"""How long requests may take to end after the signal to stop."""
BACKLOG = 2048
DEAF_MS = 30_000
"""A client that takes nothing of what was sent for so long is cut off by the system."""
_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux


class Server(uvicorn.Server):
    """Says that it stops before it waits for the requests: the lifespan would say so after that."""

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_stop()
        await super().shutdown(sockets)


def serve(settings: Settings, host: str, port: int) -> int:
    """Serve on ``host:port``; returns an exit status after SIGINT or SIGTERM.

    Raises:
        ConfigurationError: If a setting, the host or the port cannot be used.
    """
    # A second series for each counter, which nobody charts.
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        lifespan="on",
        ws="none",
        # Logging is set up by whoever starts us; a line per request is what /metrics is for.
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_S,
    )
    server = Server(config, on_stop=app.state.scopes.drain)
    with listening(host, port) as listener:
        logger.info("running on %s", _url(listener))
        for each in settings.for_each_scope():
            if not each.api_key:
                name = api_key_variable(each.scope, is_further=each.scope != settings.scope)
                logger.warning("%s is not set: of scope %s only what workers report is known", name, each.scope)
        server.run(sockets=[listener])
    return 0 if server.started else 1


def listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sends small pieces at once; else each answer would wait 40 ms for the client.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if _USER_TIMEOUT is not None:
        # Its connections inherit it: one whose client takes nothing would stay half-closed for ever.
        listener.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, DEAF_MS)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigurationError(f"cannot listen on {host}, port {port}: {error}; choose --host and --port") from None
    return listener


def _url(listener: socket.socket) -> str:
    host, port, *_ = listener.getsockname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
