"""Reporting under the names that existing workers use, on top of the guard's own machinery.

A report goes through the same queue, counting and classification as a guarded call. It has no start time, so it is
taken as begun now.
"""

from __future__ import annotations

import asyncio
import os
from typing import Self

from openrouter_guard.keys import DEFAULT_SCOPE
from openrouter_guard.rules.signals import SUCCESS, ErrorType, Signal, of_error_type, of_status
from openrouter_guard.settings import Settings

from .core import Core
from .thread import ended
from .view import Ticket

__all__ = [
    "WorkerOpenRouterReporter",
    "get_openrouter_reporter",
    "report_openrouter_error",
    "report_openrouter_success",
]

_REPORT_S = 2.0
_ANY_EPOCH = 0

_PHRASES: tuple[tuple[ErrorType, tuple[str, ...]], ...] = (
    (ErrorType.API_KEY_INVALID, ("api key", "unauthorized", "authentication")),
    (ErrorType.CREDITS_EXHAUSTED, ("credit", "quota", "payment")),
    (ErrorType.RATE_LIMITED, ("rate limit", "too many requests")),
    (ErrorType.SERVICE_UNAVAILABLE, ("unavailable", "server error", "internal error", "overloaded")),
    (ErrorType.TIMEOUT, ("timeout", "timed out")),
    (ErrorType.NETWORK_ERROR, ("network", "connection", "dns")),
)


class WorkerOpenRouterReporter:
    """Reports what a worker saw of OpenRouter to the shared state.

    Raises:
        ConfigurationError: On creation, if the address or the scope cannot be used.
    """

    def __init__(self, redis_url: str | None = None, *, scope: str = DEFAULT_SCOPE, worker_id: str = "") -> None:
        """Without ``redis_url`` everything comes from the environment, as for ``Guard.from_env()``."""
        settings = (
            Settings.from_env(os.environ)
            if redis_url is None
            else Settings(redis_url=redis_url, scope=scope, worker_id=worker_id)
        )
        self._core = Core(settings)

    async def report_api_error(
        self, error_message: str, status_code: int | None = None, error_type: str | None = None
    ) -> bool:
        """Report a failed call.

        Args:
            error_message: What the API or the client library said; shortened when stored.
            status_code: Of the HTTP answer, where there was one.
            error_type: An error type, if the worker knows it; else it follows from the other two.

        Returns:
            True once the report is in Redis; False if Redis is away, and then it is sent when Redis is back.
        """
        return await self._report(_signal(error_message, status_code, error_type))

    async def report_api_success(self) -> bool:
        """Report a call that succeeded; returns as :meth:`report_api_error` does."""
        return await self._report(SUCCESS)

    async def close(self) -> None:
        await asyncio.to_thread(self._core.close, _REPORT_S)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _report(self, signal: Signal) -> bool:
        self._core.finish(Ticket(_ANY_EPOCH, ""), signal)
        flushed = self._core.flush()
        return await ended(flushed, _REPORT_S) and flushed.exception() is None


def _signal(message: str, status_code: int | None, error_type: str | None) -> Signal:
    if error_type is not None:
        return of_error_type(error_type, message, status_code)
    if status_code is not None and status_code >= 400:
        return of_status(status_code, error={"message": message}, now_s=0.0)
    text = message.lower()
    named = (kind for kind, phrases in _PHRASES if any(phrase in text for phrase in phrases))
    return of_error_type(next(named, ErrorType.UNKNOWN_ERROR), message, status_code)


_reporter: WorkerOpenRouterReporter | None = None


def get_openrouter_reporter() -> WorkerOpenRouterReporter:
    """The reporter of this process, set up from the environment."""
    global _reporter
    if _reporter is None:
        _reporter = WorkerOpenRouterReporter()
    return _reporter


async def report_openrouter_error(
    error_message: str, status_code: int | None = None, error_type: str | None = None
) -> bool:
    return await get_openrouter_reporter().report_api_error(error_message, status_code, error_type)


async def report_openrouter_success() -> bool:
    return await get_openrouter_reporter().report_api_success()
