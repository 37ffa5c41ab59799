"""A receiver of the webhook: an HTTP server with a thread of its own, which keeps what it got."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["PATH_SECRET", "Posted", "Receiver", "receiver"]

PATH_SECRET = "T0123-hunter2"


@dataclass(frozen=True, slots=True)
class Posted:
    """One request, as it came in."""

    headers: dict[str, str]
    """By their names in small letters."""
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self.body)
        return event


@dataclass(slots=True)
class Receiver:
    """Answers with the codes in turn, the last of them for ever; 0 never answers.

    Attributes:
        has_end: Whether the body of an answer has one.
    """

    port: int = 0
    codes: list[int] = field(default_factory=lambda: [200])
    posts: list[Posted] = field(default_factory=list)
    has_end: bool = True
    ends: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/services/{PATH_SECRET}"

    @property
    def taken(self) -> list[dict[str, Any]]:
        return [post.event for post in self.posts]

    def answer(self) -> int:
        return self.codes.pop(0) if len(self.codes) > 1 else self.codes[0]


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A receiver that listens."""
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.posts.append(Posted({name.lower(): value for name, value in self.headers.items()}, body))
            code = found.answer()
            if not code:
                found.ends.wait()
                return
            self.send_response(code)
            self.send_header("content-length", "0" if found.has_end else "1000000000000")
            self.end_headers()
            with suppress(OSError):
                while not found.has_end and not found.ends.is_set():
                    self.wfile.write(bytes(65_536))

        def log_message(self, *_args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield found
        finally:
            found.ends.set()
            server.shutdown()
            thread.join()
