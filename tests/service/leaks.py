"""Capture all output of the service in these tests, and search it for secrets."""

from __future__ import annotations

import base64
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from openrouter_guard.api import app as apps
from tests.service.apps import KEY, MANAGEMENT_KEY, READ_TOKEN, WRITE_TOKEN

__all__ = ["PASSWORD", "Ears", "listening_to_everything"]

PASSWORD = "hunter2"
"""Of Redis, wherever a test needs one."""
SECRETS = (KEY, MANAGEMENT_KEY, READ_TOKEN, WRITE_TOKEN, PASSWORD)
_LOGGERS = ("openrouter_guard", "uvicorn")


class Ears(logging.Handler):
    """Hears answers, with their headers, and log lines, with their extra fields and tracebacks."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        extra = {name: value for name, value in vars(record).items() if name not in ("msg", "args")}
        self.heard.append(f"{self.format(record)} {extra}")

    def hear(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.heard.append(str(message.get("headers")))
        self.heard.append(bytes(message.get("body", b"")).decode(errors="replace"))

    def leaks(self) -> list[str]:
        """What was heard with a secret in it since the last time."""
        heard, self.heard = self.heard, []
        return [said for said in heard if any(word in said for word in _words())]


def _words() -> Iterator[str]:
    """Each secret, most of it, and as a header for a password would carry it."""
    for secret in SECRETS:
        yield secret
        yield base64.b64encode(secret.encode()).decode().rstrip("=")
    yield KEY[:-4]


@contextmanager
def listening_to_everything() -> Iterator[Ears]:
    ears = Ears()
    call: Callable[[Any, Scope, Receive, Send], Awaitable[None]] = apps._App.__call__

    async def overheard(self: Any, scope: Scope, receive: Receive, send: Send) -> None:
        async def tell(message: Message) -> None:
            ears.hear(message)
            await send(message)

        await call(self, scope, receive, tell)

    with pytest.MonkeyPatch.context() as patch, _in_detail():
        patch.setattr(apps._App, "__call__", overheard)
        logging.getLogger().addHandler(ears)
        try:
            yield ears
        finally:
            logging.getLogger().removeHandler(ears)


@contextmanager
def _in_detail() -> Iterator[None]:
    """Everything that the product has to say, and no more of it after the test."""
    levels = {logger: logger.level for logger in map(logging.getLogger, _LOGGERS)}
    for logger in levels:
        logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
