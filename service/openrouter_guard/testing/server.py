"""Runs the simulated OpenRouter on a port: beside a test, or for a person until Ctrl-C."""

from __future__ import annotations

import logging
import signal
import socket
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from openrouter_guard.errors import ConfigurationError

from .failures import ConnectionDropped
from .modes import MODES
from .simulator import BASE_PATH, SimulatedOpenRouter

__all__ = ["run", "running"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SERVER_LOG = logging.getLogger("uvicorn.error")


def run(host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM; call it from the main thread.

    Raises:
        ConfigurationError: If the port cannot be used.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        with running(SimulatedOpenRouter(), host=host, port=port) as base_url:
            print(_banner(base_url), flush=True)
            signal.sigwait(_SIGNALS)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def running(simulated: SimulatedOpenRouter, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve from a thread; yield the address for ``OPENROUTER_BASE_URL``. All connections are closed at the end.

    Args:
        simulated: Can still be switched while it runs.
        host: The address to listen on.
        port: 0 for any that is free.

    Raises:
        ConfigurationError: If the port cannot be used.
    """
    listener = _listen(host, port)
    config = uvicorn.Config(
        simulated,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
    )
    server = _Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), name="simulated-openrouter")
    unexpected = _Unexpected()
    _SERVER_LOG.addFilter(unexpected)
    thread.start()
    try:
        yield f"{_origin(listener)}{BASE_PATH}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
        _SERVER_LOG.removeFilter(unexpected)


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # A request that hangs on purpose would block the shutdown.
        for connection in list(self.server_state.connections):
            if connection.transport:
                connection.transport.abort()
        await super().shutdown(sockets)


class _Unexpected(logging.Filter):
    """Ignores connections that were dropped on purpose: the server would log a traceback for each."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], ConnectionDropped))


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(f"cannot listen on {host}:{port} ({error}): choose another --port") from None
    # With the protocol named, asyncio sends small pieces at once; else each answer would wait 40 ms for the client.
    return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, listener.detach())


def _origin(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _banner(base_url: str) -> str:
    control = f"{base_url.removesuffix(BASE_PATH)}/simulate"
    names = textwrap.fill(", ".join(MODES), width=100, initial_indent="  ", subsequent_indent="  ")
    return "\n".join(
        (
            f"The simulated OpenRouter answers at {base_url}",
            "",
            "Switch its mode",
            f"""  curl -X PUT {control} -H 'content-type: application/json' -d '{{"mode": "outage"}}'""",
            "List the modes, and the requests so far",
            f"  curl {control}",
            "",
            "Modes",
            names,
            "",
            "Ctrl-C stops it.",
        )
    )
