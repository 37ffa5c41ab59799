"""Every error that this distribution raises on purpose, sorted by what you can do about it.

OpenRouterGuardError
├── CallNotPermitted      wait: ``retry_after_s`` says how long
├── ConfigurationError    fix it: a setting, an address, a scope
└── StoreError
    ├── StoreUnavailable  wait: Redis does not answer
    ├── StoreRefused      fix it: Redis answers with a refusal
    ├── ForeignValue      fix it: a key of ours holds a foreign value
    ├── StateUnreadable   report it: the stored state cannot be decoded
    └── StoreContended    a bug or an overload: other processes changed the state faster
"""

from __future__ import annotations

import math
import re

__all__ = [
    "REFUSAL_HEADER",
    "CallNotPermitted",
    "ConfigurationError",
    "ForeignValue",
    "OpenRouterGuardError",
    "StateUnreadable",
    "StoreContended",
    "StoreError",
    "StoreRefused",
    "StoreUnavailable",
    "refusal_headers",
]


REFUSAL_HEADER = "openrouter-guard"
"""The header of an answer that a guard gave in place of the upstream."""
_NO_TOKEN = re.compile(r"[^A-Za-z0-9_.-]")


def refusal_headers(retry_after_s: float, reason: str) -> dict[str, str]:
    """Return the headers of an answer that refuses a call: when to come back, and that a guard refused it."""
    return {
        "Retry-After": str(max(math.ceil(retry_after_s), 1)),
        "OpenRouter-Guard": f"refused; reason={_NO_TOKEN.sub('_', reason)[:64]}",
    }


class OpenRouterGuardError(Exception):
    """The root of the tree."""


class CallNotPermitted(OpenRouterGuardError):
    """The call was not made: the breaker is open, or the account is rate limited.

    Attributes:
        retry_after_s: Seconds until another attempt makes sense, never negative.
        reason: The reason, as in the status, such as ``service_unavailable``.
    """

    def __init__(self, retry_after_s: float, reason: str) -> None:
        super().__init__(f"calls to OpenRouter are paused ({reason}); try again in {retry_after_s:.1f} s")
        self.retry_after_s = retry_after_s
        self.reason = reason

    @property
    def headers(self) -> dict[str, str]:
        """Headers for an HTTP 503: they tell the next guard that this is not the upstream's answer."""
        return refusal_headers(self.retry_after_s, self.reason)

    def __reduce__(self) -> tuple[type[CallNotPermitted], tuple[float, str]]:
        # Task queues pickle exceptions, and the default would call this with the message alone.
        return (type(self), (self.retry_after_s, self.reason))


class ConfigurationError(OpenRouterGuardError):
    """A setting is invalid; the message names it and says how to fix it."""


class StoreError(OpenRouterGuardError):
    """The shared state could not be read or written."""


class StoreUnavailable(StoreError):
    """Redis is away, or slower than the time we give it.

    Attributes:
        is_silent: Whether nothing came back in time, neither answer nor refusal: it may only be slow.
    """

    def __init__(self, message: str, *, is_silent: bool = False) -> None:
        super().__init__(message)
        self.is_silent = is_silent


class StoreRefused(StoreError):
    """Redis answers and refuses: read-only, out of memory, or no permission."""


class ForeignValue(StoreError):
    """A key of ours holds a value of another application; it is left as it is.

    Attributes:
        key: The key.
    """

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.key = key


class StateUnreadable(StoreError):
    """The stored state cannot be decoded; callers act as if Redis were away."""


class StoreContended(StoreError):
    """Other clients changed the state first on every attempt."""
