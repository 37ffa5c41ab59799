"""Loops in the background that survive every failure, and their log messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeAlias

from openrouter_guard.errors import ForeignValue, StoreError, StoreRefused
from openrouter_guard.log_once import LogOnce
from openrouter_guard.replica.pace import RETRY_S, pause

__all__ = ["HEARTBEAT_S", "Work", "forever", "optional"]

REFUSED_RETRY_S = 60.0
HEARTBEAT_S = 60.0

Work: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


async def forever(work: Work, away: Callable[[StoreError], object], mistakes: LogOnce) -> None:
    """Repeat it; call *away* if Redis fails, and *mistakes* for bugs of our own."""
    while True:
        try:
            await work()
        except StoreError as error:
            away(error)
            await pause(RETRY_S)
        except Exception as error:  # noqa: BLE001  nobody would hear of it, nor of any call from then on
            mistakes.failed(error)
            await asyncio.sleep(RETRY_S[1])


def optional(work: Work, without_it: str) -> Work:
    """Run a command that Redis may refuse without harm, such as for lack of a right; it is retried later."""
    return partial(_tolerant, work, LogOnce(without_it, ""))


async def _tolerant(work: Work, log_once: LogOnce) -> None:
    try:
        await work()
    except (StoreRefused, ForeignValue) as error:
        log_once.failed(error)
        await asyncio.sleep(REFUSED_RETRY_S)
