"""What one answer of OpenRouter, or the lack of one, says about the upstream.

Sources: the documented statuses of chat completions and the error bodies
``{"error": {"code", "message", "metadata"?}}`` of https://openrouter.ai/docs/api-reference/errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from enum import StrEnum
from typing import Any

from .hiding import without_keys

__all__ = ["About", "Effect", "ErrorType", "OpenRouterState", "Signal", "of_error_type", "of_status"]

MAX_WAIT_S = 25 * 3600.0
"""No upstream limit lasts longer than a day; a later time is a clock or a unit gone wrong."""


class OpenRouterState(StrEnum):
    """The state of the upstream, as stored and shown."""

    ACTIVE = "active"
    API_KEY_MISSING = "api_key_missing"
    API_KEY_INVALID = "api_key_invalid"
    CREDITS_EXHAUSTED = "credits_exhausted"
    RATE_LIMITED = "rate_limited"
    SERVICE_UNAVAILABLE = "service_unavailable"
    ERROR = "error"


class ErrorType(StrEnum):
    """What a worker reports."""

    API_KEY_INVALID = "api_key_invalid"
    CREDITS_EXHAUSTED = "credits_exhausted"
    RATE_LIMITED = "rate_limited"
    SERVICE_UNAVAILABLE = "service_unavailable"
    TIMEOUT = "timeout"
    NETWORK_ERROR = "network_error"
    UNKNOWN_ERROR = "unknown_error"

    @property
    def state(self) -> OpenRouterState:
        """The state that this error puts the upstream in."""
        try:
            return OpenRouterState(self.value)
        except ValueError:
            return OpenRouterState.ERROR


class Effect(StrEnum):
    """What a signal does to the breaker."""

    SUCCESS = "success"
    FAILURE = "failure"
    RATE_LIMIT = "rate_limit"
    NEUTRAL = "neutral"
    MODEL = "model"
    """A failure of one model's providers while others work: it says nothing about the fleet."""


class About(StrEnum):
    """Whom a signal is about."""

    ACCOUNT = "account"
    """All calls."""
    MODEL = "model"
    """The model that was called: a provider behind it is named."""
    FREE_MODELS = "free_models"
    """The models whose names end in ``:free``, which share a cap."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One observation of the upstream.

    Attributes:
        effect: What it does to the breaker.
        error_type: None for a success and for what is the caller's own mistake.
        message: The upstream's words, shortened; never holds a key.
        status_code: HTTP status, where there was an answer.
        wait_s: How long the upstream asked to wait, where it did.
        about: Whom it is about.
    """

    effect: Effect
    error_type: ErrorType | None = None
    message: str = ""
    status_code: int | None = None
    wait_s: float | None = None
    about: About = About.ACCOUNT

    @property
    def doubts_account(self) -> bool:
        """Whether it says that the key or the credit is gone, which a health check can tell better than a call."""
        return self.effect is Effect.FAILURE and self.error_type in _OF_THE_ACCOUNT


SUCCESS = Signal(Effect.SUCCESS)
NEUTRAL = Signal(Effect.NEUTRAL)

_FAILURES: Mapping[int, ErrorType] = {
    401: ErrorType.API_KEY_INVALID,
    408: ErrorType.TIMEOUT,
    500: ErrorType.SERVICE_UNAVAILABLE,
    502: ErrorType.SERVICE_UNAVAILABLE,
    503: ErrorType.SERVICE_UNAVAILABLE,
    504: ErrorType.TIMEOUT,
    524: ErrorType.TIMEOUT,
    529: ErrorType.SERVICE_UNAVAILABLE,
}
_OF_THE_ACCOUNT = frozenset({ErrorType.API_KEY_INVALID, ErrorType.CREDITS_EXHAUSTED})
_MESSAGE_LENGTH = 200
_DAY_S, _MINUTE_S = 86_400.0, 60.0
RESET = "x-ratelimit-reset"


def of_status(
    status_code: int,
    *,
    error: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    now_s: float,
) -> Signal:
    """What an HTTP answer says.

    Args:
        status_code: Of the answer, or the ``code`` of an error inside a 200.
        error: The object under ``error`` in the body, where there is one.
        headers: With lower-case names.
        now_s: Unix seconds, to turn a reset time into a wait.
    """
    error = error or {}
    metadata = _mapping(error.get("metadata"))
    message = _shown(str(error.get("message") or f"HTTP {status_code}"))
    if status_code < 400:
        return SUCCESS
    if status_code == 429:
        return _rate_limit(message, metadata, headers or {}, now_s)
    error_type = _error_type(status_code, message, metadata)
    effect = Effect.NEUTRAL if error_type is None else Effect.FAILURE
    if status_code >= 500 and metadata.get("provider_name"):
        return Signal(effect, error_type, message, status_code, _wait_s(headers or {}, metadata, now_s), About.MODEL)
    return Signal(effect, error_type, message, status_code)


def of_error_type(error_type: str, message: str = "", status_code: int | None = None) -> Signal:
    """What a worker says that has already named the error; a name we do not know is ``unknown_error``."""
    try:
        known = ErrorType(error_type)
    except ValueError:
        known = ErrorType.UNKNOWN_ERROR
    return Signal(Effect.FAILURE, known, _shown(message), status_code)


def _shown(message: str) -> str:
    """Hidden before it is cut: half a key is a key too."""
    return without_keys(message)[:_MESSAGE_LENGTH]


def _error_type(status_code: int, message: str, metadata: Mapping[str, Any]) -> ErrorType | None:
    match status_code:
        case 402:
            return None if _is_about_one_request(metadata) else ErrorType.CREDITS_EXHAUSTED
        case 403:
            # The only 403 that is about the account: the others are about what was asked for.
            return ErrorType.CREDITS_EXHAUSTED if "limit exceeded" in message.lower() else None
        case _ if status_code >= 500:
            return _FAILURES.get(status_code, ErrorType.SERVICE_UNAVAILABLE)
        case _:
            return _FAILURES.get(status_code)


def _is_about_one_request(metadata: Mapping[str, Any]) -> bool:
    oversized = metadata.get("reason") == "weight_exceeds_budget"
    return oversized or metadata.get("limit_source") == "openrouter_in_flight_budget"


def _rate_limit(message: str, metadata: Mapping[str, Any], headers: Mapping[str, str], now_s: float) -> Signal:
    wait_s = _wait_s(headers, metadata, now_s)
    if metadata.get("provider_name"):
        # One provider's pool behind one model is full: that says nothing about the account.
        return Signal(Effect.NEUTRAL, ErrorType.RATE_LIMITED, message, 429, wait_s, About.MODEL)
    if "free-models-per" in message.lower():
        # What is paid for goes on.
        wait_s = _free_wait_s(message, wait_s, now_s, has_reset=_from_epoch_ms(headers.get(RESET), now_s) is not None)
        return Signal(Effect.NEUTRAL, ErrorType.RATE_LIMITED, message, 429, wait_s, About.FREE_MODELS)
    # Without a time to wait for there is nothing to hold the fleet to: it counts as one failure.
    effect = Effect.FAILURE if wait_s is None else Effect.RATE_LIMIT
    return Signal(effect, ErrorType.RATE_LIMITED, message, 429, wait_s)


def _free_wait_s(message: str, wait_s: float | None, now_s: float, *, has_reset: bool) -> float:
    """How long the cap of the free models lasts: that of the day to midnight UTC, that of the minute for one."""
    if "per-min" in message.lower():
        return _MINUTE_S if wait_s is None else wait_s
    until_midnight_s = _DAY_S - now_s % _DAY_S
    # To try again sooner, as Retry-After may say, would be refused all day.
    return max(wait_s or 0.0, 0.0 if has_reset else until_midnight_s)


def _wait_s(headers: Mapping[str, str], metadata: Mapping[str, Any], now_s: float) -> float | None:
    """The longest wait that upstream asks for, in seconds, clamped to 0 … 25 h."""
    candidates = (
        _number(headers.get("retry-after-ms"), scale=1e-3),
        _number(headers.get("retry-after")),
        _from_date(headers.get("retry-after"), now_s),
        _number(metadata.get("retry_after_seconds")),
        _from_epoch_ms(headers.get(RESET), now_s),
    )
    waits = [wait for wait in candidates if wait is not None]
    return min(max(*waits, 0.0), MAX_WAIT_S) if waits else None


def _from_epoch_ms(text: Any, now_s: float) -> float | None:
    reset_s = _number(text, scale=1e-3)
    return None if reset_s is None else reset_s - now_s


def _from_date(text: Any, now_s: float) -> float | None:
    # Rare, and a probe that starts every few seconds should not pay for it.
    from email.utils import parsedate_to_datetime

    try:
        at = parsedate_to_datetime(str(text))
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now_s


def _number(value: Any, *, scale: float = 1.0) -> float | None:
    try:
        number = float(value) * scale
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
