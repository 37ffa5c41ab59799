"""The plain status request, answered with the bytes of a moment ago: what most callers ask, many times a second.

The route makes the answer, with everything that its layers add; this one, in front of them all, sends it again for a
moment, as long as nothing new is known. So an answer costs little more than the server's own work.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .schemas.status import StatusAnswer
from .scope.service import Service

__all__ = ["REPEAT_S", "StatusFastPath"]

REPEAT_S = 0.1
"""How long an answer is sent again: by so much its age may be behind."""
_PLAIN = ("http", "GET", b"")
_BODY = "http.response.body"
# What may change the answer. Whoever sends one of these is answered by the route itself.
_DECIDING = frozenset({b"authorization", b"cookie", b"if-modified-since", b"if-none-match", b"origin", b"range"})


@dataclass(frozen=True, slots=True)
class _Kept:
    """An answer, and until when (monotonic seconds) and at which version of the state it holds."""

    answer: StatusAnswer
    start: Message
    body: Message
    version: int
    until_s: float


class StatusFastPath:
    """ASGI layer around *app* for ``GET`` of *path* without a query; everything else goes through."""

    def __init__(self, app: ASGIApp, service: Service, path: str) -> None:
        self._app = app
        self._service = service
        self._path = path
        self._kept: _Kept | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._is_plain(scope):
            await self._app(scope, receive, send)
            return
        began_s, kept = time.perf_counter(), self._kept
        if kept is None or kept.version != self._service.version or kept.until_s < time.monotonic():
            await self._make(scope, receive, send)
            return
        # A copy, for the server adds to the headers of some messages.
        await send({**kept.start, "headers": list(kept.start["headers"])})
        await send(kept.body)
        self._service.count(kept.answer)
        self._service.telemetry.requested(self._path, 200, time.perf_counter() - began_s)

    def _is_plain(self, scope: Scope) -> bool:
        if scope.get("path") != self._path:
            return False
        if (scope["type"], scope["method"], scope["query_string"]) != _PLAIN:
            return False
        return _DECIDING.isdisjoint(name for name, _ in scope["headers"])

    async def _make(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the route answer, and keep what it said if the next one would say the same."""
        version = self._service.version if self._service.only_reads else None
        messages: list[Message] = []

        async def send_and_keep(message: Message) -> None:
            messages.append(message)
            await send(message)

        await self._app(scope, receive, send_and_keep)
        answer = self._service.last_answer
        if answer is not None and version == self._service.version and _is_whole(messages):
            start, body = messages
            self._kept = _Kept(answer, start, body, version, until_s=time.monotonic() + REPEAT_S)


def _is_whole(messages: list[Message]) -> bool:
    """Whether it is a good answer in one piece."""
    if len(messages) != 2 or messages[0].get("status") != 200:
        return False
    return messages[1]["type"] == _BODY and not messages[1].get("more_body", False)
