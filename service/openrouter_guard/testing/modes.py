"""The modes of the simulated OpenRouter, as a table by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from openrouter_guard.errors import ConfigurationError
from openrouter_guard.rules.units import DAY_S

from . import failures
from .answers import CHAT, KEY, PATHS, PROVIDER, Account
from .failures import Announce, Answer

__all__ = ["HEALTHY", "MODES", "Mode", "Setting", "setting"]

MAX_S = DAY_S


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to behave.

    Attributes:
        description: One line for people.
        answer: Returns the answer to a request.
        paths: Affected paths by default; the other paths answer well.
        delay_s: Duration of an answer.
        retry_after_s: The wait in an answer; None: it names none.
        can_announce: Whether the answer can contain ``retry_after_s``.
    """

    name: str
    description: str
    answer: Answer
    paths: tuple[str, ...] = PATHS
    delay_s: float = 0.0
    retry_after_s: float | None = None
    can_announce: bool = False


@dataclass(frozen=True, slots=True)
class Setting:
    """A mode with its present options."""

    mode: Mode
    paths: tuple[str, ...]
    delay_s: float
    retry_after_s: float | None


def setting(
    name: str,
    paths: Collection[str] | None = None,
    delay_s: float | None = None,
    retry_after_s: float | None = None,
) -> Setting:
    """Return the mode of that name, with its own values for arguments that are None.

    Raises:
        ConfigurationError: If there is no such mode or path, or the mode does not take the value.
    """
    mode = MODES.get(name)
    if mode is None:
        raise ConfigurationError(f"there is no mode {name!r}: choose one of {', '.join(MODES)}")
    # The older address of the same.
    paths = None if paths is None else [KEY if path == "/auth/key" else path for path in paths]
    unknown = sorted(set(paths or ()) - set(PATHS))
    if unknown or (paths is not None and not paths):
        raise ConfigurationError(f"paths is {sorted(paths or ())}: name one or more of {', '.join(PATHS)}")
    if retry_after_s is not None and not mode.can_announce:
        raise ConfigurationError(f"retry_after_s: the answers of mode {name!r} have no place for it; leave it out")
    for parameter, value in (("delay_s", delay_s), ("retry_after_s", retry_after_s)):
        if value is not None and not 0 <= value <= MAX_S:
            raise ConfigurationError(f"{parameter} is {value}: write seconds from 0 to {MAX_S:.0f}")
    return Setting(
        mode=mode,
        paths=tuple(path for path in PATHS if path in (paths or mode.paths)),
        delay_s=mode.delay_s if delay_s is None else delay_s,
        retry_after_s=mode.retry_after_s if retry_after_s is None else retry_after_s,
    )


def _error(
    name: str,
    code: int,
    error_type: str,
    message: str,
    description: str,
    *,
    paths: tuple[str, ...] = PATHS,
    announce: Announce = failures.as_seconds,
    retry_after_s: float | None = None,
    left: Account | None = None,
    **metadata: str,
) -> Mode:
    """Return a mode in which calls fail in this way.

    If *left* is given, the other paths return that remaining credit.
    """
    answer = failures.failing(code, message, error_type, announce, **metadata)
    if left is not None:
        answer = failures.spent(left, answer)
    return Mode(name, f"{code}: {description}", answer, paths, retry_after_s=retry_after_s, can_announce=True)


_CHAT = (CHAT,)
_NO_CREDITS = Account(credits_used_usd=Account().credits_usd)
_NO_LIMIT_LEFT = Account(key_usage_usd=Account().key_limit_usd)
_NOTHING_LEFT = replace(_NO_LIMIT_LEFT, credits_used_usd=Account().credits_usd)
_SLOW_S = 5.0

_TABLE = (
    Mode("healthy", "every request is answered well", failures.good),
    _error("outage", 503, "provider_unavailable", "Service unavailable", "nothing works"),
    # Errors of the request.
    _error("bad_request", 400, "invalid_request", "Invalid request", "the request is wrong", paths=_CHAT),
    _error("not_found", 404, "not_found", "No endpoints found for this model", "no such model", paths=_CHAT),
    _error("payload_too_large", 413, "payload_too_large", "Payload too large", "a large prompt", paths=_CHAT),
    _error("unprocessable", 422, "unprocessable", "Unprocessable", "values that make no sense", paths=_CHAT),
    _error("forbidden", 403, "permission_denied", "Permission denied", "a guardrail forbids it", paths=_CHAT),
    _error(
        "moderation",
        403,
        "content_policy_violation",
        "Your chosen model requires moderation and your input was flagged",
        "the prompt was flagged",
        paths=_CHAT,
        flagged_input="simulated",
        provider_name=PROVIDER,
    ),
    # The key.
    _error("unauthorized", 401, "authentication", "Invalid credentials", "the key is wrong"),
    _error("user_not_found", 401, "authentication", "User not found", "valid keys are refused, as in an incident"),
    # Money.
    _error(
        "credits_exhausted",
        402,
        "payment_required",
        "Insufficient credits",
        "the account has no credits left; /key does not show it, /credits does",
        left=_NO_CREDITS,
        limit_source="openrouter_credits",
    ),
    _error(
        "credits_empty",
        402,
        "payment_required",
        "Insufficient credits",
        "nothing is left: /key answers with limit_remaining 0, /credits with as much used as bought",
        left=_NOTHING_LEFT,
        limit_source="openrouter_credits",
    ),
    _error(
        "key_limit_reached",
        402,
        "payment_required",
        "This request requires more credits than the key's limit allows",
        "the key's own limit is used up; /key answers with limit_remaining 0",
        left=_NO_LIMIT_LEFT,
        limit_source="openrouter_key_limit",
    ),
    _error(
        "key_limit_exceeded",
        403,
        "permission_denied",
        "Key limit exceeded (total limit)",
        "the key's own limit is used up, said as if the key were forbidden",
        left=_NO_LIMIT_LEFT,
    ),
    _error(
        "in_flight_budget",
        402,
        "payment_required",
        "Requests in flight use up the budget",
        "passes by itself, with Retry-After",
        paths=_CHAT,
        retry_after_s=2,
        limit_source="openrouter_in_flight_budget",
    ),
    _error(
        "oversized_request",
        402,
        "payment_required",
        "This request could cost more than the budget",
        "one request is too large, others are not",
        paths=_CHAT,
        reason="weight_exceeds_budget",
    ),
    # Limits.
    _error(
        "rate_limited",
        429,
        "rate_limit_exceeded",
        "Rate limit exceeded",
        "the platform's limit, with X-RateLimit-Reset in epoch milliseconds",
        announce=failures.as_reset_time,
        retry_after_s=30,
    ),
    _error(
        "rate_limited_seconds",
        429,
        "rate_limit_exceeded",
        "Rate limit exceeded",
        "the platform's limit, with Retry-After in seconds",
        retry_after_s=30,
    ),
    _error(
        "rate_limited_date",
        429,
        "rate_limit_exceeded",
        "Rate limit exceeded",
        "the platform's limit, with Retry-After as an HTTP date",
        announce=failures.as_date,
        retry_after_s=30,
    ),
    _error(
        "rate_limited_silent",
        429,
        "rate_limit_exceeded",
        "Rate limit exceeded",
        "the platform's limit, without a time to wait for",
    ),
    Mode(
        "provider_rate_limited",
        "429: one provider's pool behind the model is full",
        failures.provider_rate_limited,
        _CHAT,
        retry_after_s=10,
        can_announce=True,
    ),
    Mode("free_daily_cap", "429: no more ':free' models before midnight UTC", failures.free_daily_cap),
    # Errors of the server.
    _error("request_timeout", 408, "timeout", "Request timed out", "the server gave up waiting"),
    _error("server_error", 500, "server", "Internal server error", "a bug"),
    _error("bad_gateway", 502, "provider_unavailable", "Bad gateway", "what is behind it does not answer"),
    _error(
        "provider_down",
        502,
        "provider_unavailable",
        "Provider returned error",
        "one provider behind the model is down",
        paths=_CHAT,
        provider_name=PROVIDER,
    ),
    _error("gateway_timeout", 504, "timeout", "Gateway timeout", "what is behind it is too slow"),
    _error("edge_timeout", 524, "timeout", "A timeout occurred", "the edge network gave up"),
    _error("overloaded", 529, "provider_overloaded", "Provider overloaded", "too many calls for the provider"),
    # Answers that look good, and others that no client likes.
    Mode("error_in_body", "a 200 whose body is a 502", failures.error_in_body),
    Mode(
        "error_in_stream", "a stream that ends in an error; whole answers are good", failures.error_in_stream, _CHAT
    ),
    Mode("slow", "good answers that take their time", failures.good, delay_s=_SLOW_S),
    Mode("timeout", "requests are never answered", failures.hanging),
    Mode("dropped", "the connection ends in the middle of the answer", failures.dropped),
    Mode("bad_json", "half a body", failures.bad_json),
    Mode("wrong_types", "texts where numbers should be", failures.wrong_types),
    Mode("huge_body", "10 MiB of white space before the body", failures.huge_body),
    Mode("redirect", "302 to a login page, as a captive portal sends", failures.redirect),
)

MODES: Mapping[str, Mode] = {mode.name: mode for mode in _TABLE}
"""Every mode by its name."""

HEALTHY = setting("healthy")
