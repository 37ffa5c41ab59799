"""Every error that this distribution raises on purpose, sorted by what the caller can do about it.

OpenRouterGuardError
├── CallNotPermitted      wait: ``retry_after_s`` says how long
├── ConfigurationError    fix it: a setting, an address, a scope
└── StoreError
    ├── StoreUnavailable  wait: Redis does not answer
    ├── StoreRefused      fix it: Redis answers, and will not do what was asked
    ├── ForeignValue      fix it: something else lives under a key of ours
    ├── StateUnreadable   fix it: what is stored cannot be understood, and we have not thought of it
    └── StoreContended    a bug or an overload: others changed the record faster than we could
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
"""The header of an answer that a guard gave in the upstream's place."""
_NO_TOKEN = re.compile(r"[^A-Za-z0-9_.-]")


def refusal_headers(retry_after_s: float, reason: str) -> dict[str, str]:
    """What an answer that refuses a call says in its headers: when to come back, and that it is a guard's own."""
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
        reason: Why, as one of the words that the status shows, such as ``service_unavailable``.
    """

    def __init__(self, retry_after_s: float, reason: str) -> None:
        super().__init__(f"calls to OpenRouter are paused ({reason}); try again in {retry_after_s:.1f} s")
        self.retry_after_s = retry_after_s
        self.reason = reason

    @property
    def headers(self) -> dict[str, str]:
        """For the 503 that tells it over HTTP: by them the next guard knows that the upstream did not say so."""
        return refusal_headers(self.retry_after_s, self.reason)

    def __reduce__(self) -> tuple[type[CallNotPermitted], tuple[float, str]]:
        # Task queues pickle exceptions, and the default would call us with the message alone.
        return (type(self), (self.retry_after_s, self.reason))


class ConfigurationError(OpenRouterGuardError):
    """A setting cannot be used; the message names it and says what to write."""


class StoreError(OpenRouterGuardError):
    """The shared state could not be read or written."""


class StoreUnavailable(StoreError):
    """Redis is away, or slower than the time we give it.

    Attributes:
        is_silent: Whether nothing came back in time, neither an answer nor a refusal: it may merely be slow.
    """

    def __init__(self, message: str, *, is_silent: bool = False) -> None:
        super().__init__(message)
        self.is_silent = is_silent


class StoreRefused(StoreError):
    """Redis answers, and will not do it: read-only, out of memory, or no permission."""


class ForeignValue(StoreError):
    """A value that is not ours lives under one of our keys; it is left as it is.

    Attributes:
        key: Under which.
    """

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.key = key


class StateUnreadable(StoreError):
    """What is stored cannot be understood; who meets it acts as if Redis were away."""


class StoreContended(StoreError):
    """A transition was overtaken by others on every attempt."""
