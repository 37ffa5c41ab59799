"""An upstream that records every call, to count how many arrive at once."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["Upstream", "ask", "most_at_once", "upstream"]

HOLD_S = 0.03
"""How long an answer takes: long enough for others to come in meanwhile."""
_TIMEOUT_S = 10.0


@dataclass(slots=True)
class Upstream:
    """Where it listens, what it answers, and when each call came and went (Unix seconds)."""

    port: int
    is_down: bool = True
    calls: list[tuple[float, float]] = field(default_factory=list)

    def serve(self, connection: socket.socket) -> None:
        came_s = time.time()
        time.sleep(HOLD_S)
        # Gone as soon as the caller may know the answer.
        self.calls.append((came_s, time.time()))
        connection.sendall(b"n" if self.is_down else b"y")


@contextmanager
def upstream() -> Iterator[Upstream]:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            known.serve(self.request)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 128

    with Server(("127.0.0.1", 0), Handler) as server:
        known = Upstream(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield known
        server.shutdown()
        thread.join()


def ask(port: int) -> None:
    """One call.

    Raises:
        TimeoutError: If the upstream is down.
    """
    with socket.create_connection(("127.0.0.1", port), _TIMEOUT_S) as connection:
        if connection.recv(1) != b"y":
            raise TimeoutError


def most_at_once(calls: Sequence[tuple[float, float]]) -> int:
    """How many were in flight together at the worst moment."""
    changes = sorted([(came_s, 1) for came_s, _ in calls] + [(gone_s, -1) for _, gone_s in calls])
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most
