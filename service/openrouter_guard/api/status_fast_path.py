"""Answers the plain status request from prepared bytes: it is the most frequent request by far.

The route creates the answer, with everything that its layers add. This layer, outside all others, repeats it for a
moment, as long as the state is unchanged. So an answer costs little more than the server's own work.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .schemas.status import StatusAnswer
from .scope.service import Service

__all__ = ["REPEAT_S", "StatusFastPath"]

REPEAT_S = 0.1
"""How long an answer is repeated; its age may be behind by this much."""
_PLAIN = ("http", "GET", b"")
_BODY = "http.response.body"
# Headers that may change the answer: the route itself answers such requests.
_DECIDING = frozenset({b"authorization", b"cookie", b"if-modified-since", b"if-none-match", b"origin", b"range"})


@dataclass(frozen=True, slots=True)
class _Kept:
    """An answer, the end of its validity (monotonic seconds) and its version of the state."""

    answer: StatusAnswer
    start: Message
    body: Message
    version: int
    until: float


class StatusFastPath:
    """ASGI layer around *app* for ``GET`` of *path* without a query; all other requests pass through."""

    def __init__(self, app: ASGIApp, service: Service, path: str) -> None:
        self._app = app
        self._service = service
        self._path = path
        self._kept: _Kept | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._is_plain(scope):
            await self._app(scope, receive, send)
            return
        began_at, kept = time.perf_counter(), self._kept
        if kept is None or kept.version != self._service.version or kept.until < time.monotonic():
            await self._make(scope, receive, send)
            return
        # A copy, because the server adds to the headers of some messages.
        await send({**kept.start, "headers": list(kept.start["headers"])})
        await send(kept.body)
        self._service.count(kept.answer)
        self._service.telemetry.requested(self._path, 200, time.perf_counter() - began_at)

    def _is_plain(self, scope: Scope) -> bool:
        if scope.get("path") != self._path:
            return False
        if (scope["type"], scope["method"], scope["query_string"]) != _PLAIN:
            return False
        return _DECIDING.isdisjoint(name for name, _ in scope["headers"])

    async def _make(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the route answer, and keep the answer if the next one would be the same."""
        version = self._service.version if self._service.only_reads else None
        messages: list[Message] = []

        async def send_and_keep(message: Message) -> None:
            messages.append(message)
            await send(message)

        await self._app(scope, receive, send_and_keep)
        answer = self._service.last_answer
        if answer is not None and version == self._service.version and _is_whole(messages):
            start, body = messages
            self._kept = _Kept(answer, start, body, version, until=time.monotonic() + REPEAT_S)


def _is_whole(messages: list[Message]) -> bool:
    """Return whether it is a complete and successful answer."""
    if len(messages) != 2 or messages[0].get("status") != 200:
        return False
    return messages[1]["type"] == _BODY and not messages[1].get("more_body", False)
