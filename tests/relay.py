"""A name in the network that leads to a port, and to another one when that is what should happen."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

__all__ = ["relaying"]


@contextmanager
def relaying(leads_to: Callable[[], int], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Pass each new connection on to the port that *leads_to* says; yields one's own, on every address."""
    ends: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(work: Callable[..., None], *args: object) -> None:
        threads.append(threading.Thread(target=work, args=args, daemon=True))
        threads[-1].start()

    def accept(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                start(relay, server.accept()[0])

    def relay(accepted: socket.socket) -> None:
        ends.append(accepted)
        with suppress(OSError):
            near = tls.wrap_socket(accepted, server_side=True) if tls else accepted
            far = socket.create_connection(("127.0.0.1", leads_to()))
            ends.extend((near, far))
            start(_copy, far, near)
            _copy(near, far)
        accepted.close()

    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("0.0.0.0", 0)))
        start(accept, server)
        yield int(server.getsockname()[1])
        # What blocks in it wakes up.
        for end in (server, *ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)
        for end in ends:
            end.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
