"""Limits the requests in progress, so that a flood of them delays no probe.

A page takes milliseconds to render. A thousand simultaneous requests would all be rendered before the event loop does
anything else. Answers from memory, and requests that wait, are not delayed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["ConcurrencyLimit"]

AT_A_TIME = 4


class ConcurrencyLimit:
    """ASGI layer around *app*; requests for the *quick* paths pass through at once."""

    def __init__(self, app: ASGIApp, quick: Collection[str]) -> None:
        self._app = app
        self._quick = quick
        self._turns = asyncio.Semaphore(AT_A_TIME)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._quick:
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
