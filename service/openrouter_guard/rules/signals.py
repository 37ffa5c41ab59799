"""Classifies one answer of OpenRouter, or the lack of one.

The status decides. For a 401, a 402 or a 403 the body decides too: it may be about the account, about one provider's
account, or about this request alone.

Sources: the documented statuses of chat completions and the error bodies
``{"error": {"code", "message", "metadata"?}}`` of https://openrouter.ai/docs/api-reference/errors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from openrouter_guard.errors import REFUSAL_HEADER

from . import waits
from .parsing import text_of
from .redaction import redact
from .units import DAY_S, MINUTE_S
from .waits import MAX_WAIT_S

__all__ = [
    "MAX_WAIT_S",
    "SignalScope",
    "Effect",
    "ErrorType",
    "OpenRouterState",
    "Signal",
    "classify_error_type",
    "classify_status",
]


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
    """The error types of reports."""

    API_KEY_INVALID = "api_key_invalid"
    CREDITS_EXHAUSTED = "credits_exhausted"
    RATE_LIMITED = "rate_limited"
    SERVICE_UNAVAILABLE = "service_unavailable"
    TIMEOUT = "timeout"
    NETWORK_ERROR = "network_error"
    UNKNOWN_ERROR = "unknown_error"

    @property
    def state(self) -> OpenRouterState:
        """Return the upstream's state for this error."""
        try:
            return OpenRouterState(self.value)
        except ValueError:
            return OpenRouterState.ERROR


class Effect(StrEnum):
    """The effect of a signal on the breaker."""

    SUCCESS = "success"
    FAILURE = "failure"
    RATE_LIMIT = "rate_limit"
    NEUTRAL = "neutral"
    MODEL = "model"
    """A failure of one model's providers while others work: it says nothing about the fleet."""


class SignalScope(StrEnum):
    """The subject of a signal."""

    ACCOUNT = "account"
    """All calls."""
    MODEL = "model"
    """The model that was called: the error names its provider."""
    FREE_MODELS = "free_models"
    """The models whose names end in ``:free``, which share a cap."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One observation of the upstream.

    Attributes:
        effect: Its effect on the breaker.
        error_type: None for a success and for the caller's own mistake.
        message: The upstream's message, shortened; never holds a key.
        status_code: HTTP status, if there was an answer.
        wait_s: How long the upstream asked to wait, if it did.
        about: Its subject.
        is_vague: True if its error type is a guess, for lack of a body: then only a health check can tell.
    """

    effect: Effect
    error_type: ErrorType | None = None
    message: str = ""
    status_code: int | None = None
    wait_s: float | None = None
    about: SignalScope = SignalScope.ACCOUNT
    is_vague: bool = False

    @property
    def doubts_account(self) -> bool:
        """Return whether it doubts the key or the credit, which a health check can verify."""
        return self.effect is Effect.FAILURE and self.error_type in _OF_THE_ACCOUNT

    @property
    def reported(self) -> ErrorType | None:
        """Return the error type as counted and shown: a guess is unknown."""
        return ErrorType.UNKNOWN_ERROR if self.is_vague else self.error_type

    @property
    def refuses_credit(self) -> bool:
        """Return whether it surely reports an empty account: a few of these open the breaker."""
        return self.reported is ErrorType.CREDITS_EXHAUSTED


SUCCESS = Signal(Effect.SUCCESS)
NEUTRAL = Signal(Effect.NEUTRAL)

_FAILURES: Mapping[int, ErrorType] = {
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
_AFFORDABLE = re.compile(
    r"can only afford\s{1,4}\$?([0-9][0-9.,_]{0,30})"
    r"|tokens limit exceeded:\s{0,4}[0-9]{1,15}\s{0,4}>\s{0,4}([0-9]{1,15})",
    re.IGNORECASE,
)


def classify_status(
    status_code: int,
    *,
    error: Mapping[str, Any] | None = None,
    headers: Mapping[str, Any] | None = None,
    now: float,
) -> Signal:
    """Return the signal of an HTTP answer.

    Args:
        status_code: Status of the answer, or the ``code`` of an error inside a 200.
        error: The object under ``error`` in the body, if there is one.
        headers: Headers with lower-case names.
        now: Unix seconds, to convert a reset time into a wait if the answer has no ``Date``.

    An answer of another guard, in place of the upstream, is neutral: the upstream was not asked.
    """
    if status_code < 400:
        return SUCCESS
    error = error or {}
    metadata = _mapping(error.get("metadata"))
    message = text_of(error.get("message"))
    shown = _shown(message or f"HTTP {status_code}")
    if _is_a_guards(headers or {}):
        return Signal(Effect.NEUTRAL, None, shown, status_code)
    told = waits.told(headers or {}, metadata)
    at = waits.answered_at(told, now)
    if status_code == 429:
        return _rate_limit(message, shown, metadata, told, at)
    provider = bool(metadata.get("provider_name"))
    if status_code in (401, 402, 403):
        return _refused(status_code, message, shown, error, provider=provider)
    error_type = _FAILURES.get(status_code, ErrorType.SERVICE_UNAVAILABLE if status_code >= 500 else None)
    if error_type is None:
        return Signal(Effect.NEUTRAL, None, shown, status_code)
    if provider:
        wait_s = waits.wait_s(told, metadata, at)
        return Signal(Effect.FAILURE, error_type, shown, status_code, wait_s, SignalScope.MODEL)
    return Signal(Effect.FAILURE, error_type, shown, status_code)


def classify_error_type(error_type: str, message: str = "", status_code: int | None = None) -> Signal:
    """Return the signal for an error type named by a worker; an unknown name is ``unknown_error``."""
    try:
        known = ErrorType(error_type)
    except ValueError:
        known = ErrorType.UNKNOWN_ERROR
    return Signal(Effect.FAILURE, known, _shown(text_of(message)), status_code)


def _shown(message: str) -> str:
    """Redacted before it is cut: half a key is a key too."""
    return redact(message)[:_MESSAGE_LENGTH]


def _refused(status_code: int, message: str, shown: str, error: Mapping[str, Any], *, provider: bool) -> Signal:
    """Classify a 401, a 402 or a 403: about the account, one provider's account, or one request."""
    error_type = ErrorType.API_KEY_INVALID if status_code == 401 else ErrorType.CREDITS_EXHAUSTED
    if status_code == 403 and "limit exceeded" not in message.lower():
        # The others are about the request.
        return Signal(Effect.NEUTRAL, None, shown, status_code)
    if provider:
        # A key or a balance with that provider: only its model waits, not OpenRouter.
        return Signal(Effect.MODEL, ErrorType.SERVICE_UNAVAILABLE, shown, status_code, about=SignalScope.MODEL)
    if status_code == 402 and _is_about_one_request(message, _mapping(error.get("metadata"))):
        return Signal(Effect.NEUTRAL, None, shown, status_code)
    if status_code == 402 and not any(error.values()):
        # It may be about one request: the body would tell, but was not read, or a library hides it.
        return Signal(Effect.FAILURE, error_type, shown, status_code, is_vague=True)
    return Signal(Effect.FAILURE, error_type, shown, status_code)


def _is_about_one_request(message: str, metadata: Mapping[str, Any]) -> bool:
    if metadata.get("reason") == "weight_exceeds_budget":
        return True
    if metadata.get("limit_source") == "openrouter_in_flight_budget":
        return True
    affordable = _AFFORDABLE.search(message)
    # The remaining credit pays for a smaller request.
    return affordable is not None and any(digit in "123456789" for digit in affordable[1] or affordable[2])


def _rate_limit(message: str, shown: str, metadata: Mapping[str, Any], told: Mapping[str, str], now: float) -> Signal:
    wait_s = waits.wait_s(told, metadata, now)
    if "free-models-per" in message.lower():
        # Paid calls go on. A provider's name beside it says nothing: the cap is the platform's.
        wait_s = _free_wait_s(message, wait_s, now, has_reset=waits.has_reset(told, now))
        return Signal(Effect.NEUTRAL, ErrorType.RATE_LIMITED, shown, 429, wait_s, SignalScope.FREE_MODELS)
    if metadata.get("provider_name"):
        # One provider's pool behind one model is full: that says nothing about the account.
        return Signal(Effect.NEUTRAL, ErrorType.RATE_LIMITED, shown, 429, wait_s, SignalScope.MODEL)
    # Without a time to wait, there is nothing to hold the fleet to: it counts as one failure.
    effect = Effect.FAILURE if wait_s is None else Effect.RATE_LIMIT
    return Signal(effect, ErrorType.RATE_LIMITED, shown, 429, wait_s)


def _free_wait_s(message: str, wait_s: float | None, now: float, *, has_reset: bool) -> float:
    """Return how long the cap of the free models lasts.

    The daily one to midnight UTC, the one per minute for a minute.
    """
    if "per-min" in message.lower():
        return MINUTE_S if wait_s is None else wait_s
    until_midnight_s = DAY_S - now % DAY_S
    # A retry sooner, as Retry-After may suggest, would be refused all day.
    return max(wait_s or 0.0, 0.0 if has_reset else until_midnight_s)


def _is_a_guards(headers: Mapping[str, Any]) -> bool:
    return text_of(headers.get(REFUSAL_HEADER), 64).partition(";")[0].strip().lower() == "refused"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
