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

__all__ = ["ConcurrencyLimit"]

AT_A_TIME = 4
A_ROUND = 4


class ConcurrencyLimit:
    """ASGI layer around *app*.

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
        self._turns = asyncio.Semaphore(AT_A_TIME)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._probes:
            await self._app(scope, receive, send)
            return
        await self._rounds.begin()
        if scope["path"] in self._quick:
            await self._app(scope, receive, send)
            return
        await self._turns.acquire()
        is_held = True

        async def send_and_let_go(message: Message) -> None:
            nonlocal is_held
            if is_held:
                # Sending may take as long as the client likes.
                is_held = False
                self._turns.release()
            await send(message)

        try:
            await self._app(scope, receive, send_and_let_go)
        finally:
            if is_held:
                self._turns.release()


class _Rounds:
    """Lets a few requests begin in each round of the event loop, in the order in which they came."""

    def __init__(self) -> None:
        self._begun = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def begin(self) -> None:
        """Return at once, or when there is room in one of the next rounds."""
        loop = asyncio.get_running_loop()
        if not self._begun:
            loop.call_soon(self._next)
        if self._begun < A_ROUND:
            self._begun += 1
            return
        turn = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _next(self) -> None:
        self._begun = 0
        while self._waiting and self._begun < A_ROUND:
            turn = self._waiting.popleft()
            if not turn.done():  # else its request was cancelled
                turn.set_result(None)
                self._begun += 1
        if self._begun:
            asyncio.get_running_loop().call_soon(self._next)
