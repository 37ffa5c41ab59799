"""Reporting under the existing names, built on the guard.

A report goes through the same queue, counting and classification as a guarded call. It has no start time, so it
counts as begun now.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Self

from openrouter_guard.errors import ConfigurationError
from openrouter_guard.keys import DEFAULT_SCOPE
from openrouter_guard.log_once import LogOnce
from openrouter_guard.rules.parsing import text_of
from openrouter_guard.rules.signals import SUCCESS, ErrorType, Signal, classify_error_type, classify_status
from openrouter_guard.worker.core import Core
from openrouter_guard.worker.names import worker_name
from openrouter_guard.worker.threads.loop_thread import ended
from openrouter_guard.worker.view import Admission

from .clients import Handed, settings_of

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
    """Reports the results of a worker's calls to the shared state.

    Attributes:
        redis: The given client, or one for the address; None for Sentinels and Clusters.
    """

    def __init__(
        self,
        redis_client: Any = None,
        *,
        scope: str = DEFAULT_SCOPE,
        worker_id: str = "",
        redis_url: str | None = None,
    ) -> None:
        """Without a client or an address, the environment is used, as for ``Guard.from_env()``.

        Args:
            redis_client: A client of redis-py, whether it decodes its answers or not, or an address. Of a client only
                the address and the login are used.
            scope: Scope of the state.
            worker_id: Name of the worker; empty: host name and process.
            redis_url: The same as an address, by keyword.

        Raises:
            ConfigurationError: If it is neither, or the scope is invalid.
        """
        given = redis_client if redis_client is not None else redis_url
        self._settings = settings_of(given, scope, worker_id)
        self._handed = Handed(given, self._settings.redis_url)
        self._core = Core(self._settings)

    @property
    def redis(self) -> Any:
        return self._handed.client

    async def report_api_error(
        self, error_message: str, status_code: int | None = None, error_type: str | None = None
    ) -> bool:
        """Report a failed call.

        Args:
            error_message: Message of the API or the client library; shortened when stored.
            status_code: Status of the HTTP answer, if there was one.
            error_type: An error type, if known; else it follows from the other two.

        Returns:
            True once the report is in Redis; False if Redis is away, and then it is sent when Redis is back.
        """
        return await self._report(_signal(error_message, status_code, error_type))

    async def report_api_success(self) -> bool:
        """Report a successful call; returns as :meth:`report_api_error` does."""
        return await self._report(SUCCESS)

    def _classify_error(self, error_message: str, status_code: int | None = None) -> str:
        """Return the error type for such a report."""
        return (_signal(error_message, status_code, None).error_type or ErrorType.UNKNOWN_ERROR).value

    def _get_worker_id(self) -> str:
        return worker_name(self._settings.worker_id)

    async def close(self) -> None:
        await self._handed.close()
        await self._core.aclose(_REPORT_S)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _report(self, signal: Signal) -> bool:
        self._core.finish(Admission(_ANY_EPOCH, ""), signal)
        flushed = self._core.flush()
        return await ended(flushed, _REPORT_S) and flushed.exception() is None


def _signal(message: str, status_code: int | None, error_type: str | None) -> Signal:
    if error_type is not None:
        return classify_error_type(error_type, message, status_code)
    if status_code is not None and status_code >= 400:
        return classify_status(status_code, error={"message": message}, now=0.0)
    text = text_of(message).lower()
    named = (kind for kind, phrases in _PHRASES if any(phrase in text for phrase in phrases))
    return classify_error_type(next(named, ErrorType.UNKNOWN_ERROR), message, status_code)


_reporter: WorkerOpenRouterReporter | None = None
_settings = LogOnce("nothing can be reported to the shared state", "reports reach the shared state")


def get_openrouter_reporter() -> WorkerOpenRouterReporter:
    """Return the reporter of this process, configured by the environment."""
    global _reporter
    if _reporter is None:
        _reporter = WorkerOpenRouterReporter()
    return _reporter


async def report_openrouter_error(
    error_message: str, status_code: int | None = None, error_type: str | None = None
) -> bool:
    """Report a failed call with the reporter of this process; False, and one log line, if there is none."""
    return await _tried(lambda: get_openrouter_reporter().report_api_error(error_message, status_code, error_type))


async def report_openrouter_success() -> bool:
    """Report a successful call; returns as :func:`report_openrouter_error` does."""
    return await _tried(lambda: get_openrouter_reporter().report_api_success())


async def _tried(report: Callable[[], Coroutine[Any, Any, bool]]) -> bool:
    """The caller has an error of its own to handle, so a missing setting is one log line, and not another error."""
    try:
        found = await report()
    except ConfigurationError as error:
        _settings.failed(error)
        return False
    _settings.worked()
    return found
