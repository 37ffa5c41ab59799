"""Limits the requests in progress, so that a flood of them delays no probe.

A page takes milliseconds to render, and a refusal takes one. A thousand simultaneous requests would all be answered
before the event loop does anything else. So a few requests begin in each round of the loop, and the slow ones wait
for each other too. Probes never wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["WHILE_THERE", "ConcurrencyLimit"]

AT_A_TIME = 4
A_ROUND = 4
WHILE_THERE = "openrouter_guard.while_there"
"""ASGI extension: a callable that takes a future, and sets its result to false once the client has gone."""


class ConcurrencyLimit:
    """ASGI layer around *app*.

    A request whose client goes while it waits is dropped at once: nobody would read its answer.

    Args:
        app: What is asked.
        quick: Paths whose requests wait for no others to end.
        probes: Paths whose requests go through at once.
    """

    def __init__(self, app: ASGIApp, quick: Collection[str], probes: Collection[str] = ()) -> None:
        self._app = app
        self._quick = quick
        self._probes = probes
        self._rounds = _Rounds()
        self._slots = _Slots()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._probes:
            await self._app(scope, receive, send)
        elif not await self._rounds.begin(scope):
            return
        elif scope["path"] in self._quick:
            await self._app(scope, receive, send)
        elif await self._slots.take(scope):
            await self._in_slot(scope, receive, send)

    async def _in_slot(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_held = True

        async def send_and_let_go(message: Message) -> None:
            nonlocal is_held
            if is_held:
                # Sending may take as long as the client likes.
                is_held = False
                self._slots.release()
            await send(message)

        try:
            await self._app(scope, receive, send_and_let_go)
        finally:
            if is_held:
                self._slots.release()


class _Queue:
    """Requests that wait, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[bool]] = deque()

    def turn(self, scope: Scope) -> asyncio.Future[bool]:
        """Return a future that is true when it is this request's turn, and false if its client has gone."""
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        if while_there := scope.get("extensions", {}).get(WHILE_THERE):
            while_there(turn)
        return turn

    def next(self) -> bool:
        """Let the first one go on; return false if none waits."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # else its client has gone, or its request was cancelled
                turn.set_result(True)
                return True
        return False


class _Rounds:
    """Lets a few requests begin in each round of the event loop."""

    def __init__(self) -> None:
        self._begun = 0
        self._queue = _Queue()

    async def begin(self, scope: Scope) -> bool:
        """Return at once, or when there is room in one of the next rounds; false if the client has gone."""
        if not self._begun:
            asyncio.get_running_loop().call_soon(self._next)
        if self._begun < A_ROUND:
            self._begun += 1
            return True
        return await self._queue.turn(scope)

    def _next(self) -> None:
        self._begun = 0
        while self._begun < A_ROUND and self._queue.next():
            self._begun += 1
        if self._begun:
            asyncio.get_running_loop().call_soon(self._next)


class _Slots:
    """Those of the requests that are slow, a few at a time."""

    def __init__(self) -> None:
        self._free = AT_A_TIME
        self._queue = _Queue()

    async def take(self, scope: Scope) -> bool:
        """Return true once this request has a slot, and false if its client has gone."""
        if self._free:
            self._free -= 1
            return True
        turn = self._queue.turn(scope)
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.result():
                # Cancelled between its turn and its start: nobody else would hand the slot on.
                self.release()
            raise

    def release(self) -> None:
        """Hand a slot to the next one."""
        if not self._queue.next():
            self._free += 1
