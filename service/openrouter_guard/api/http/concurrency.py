"""A few requests are worked on at a time, so that a flood of them keeps no probe waiting.

A page takes milliseconds to make. A thousand that were asked for at once would all be made before the event loop
comes round to anything else. What is answered from memory, or waits for something, is not held up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["ConcurrencyLimit"]

AT_A_TIME = 4


class ConcurrencyLimit:
    """ASGI layer around *app*; requests for the *quick* paths go through at once."""

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
                # To send may take as long as the client likes.
                is_held = False
                self._turns.release()
            await send(message)

        try:
            await self._app(scope, receive, send_and_let_go)
        finally:
            if is_held:
                self._turns.release()
