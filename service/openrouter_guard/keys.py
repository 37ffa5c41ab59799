"""Every Redis key we own. Nothing else may build one.

    key (default scope)                 type     lives                    written by
    openrouter:state                    hash     600 s; while calls wait  workers, service, operator
                                                 an hour longer than that
    openrouter:metrics:{YYYY-MM-DD}     hash     30 days                  workers, service
    openrouter:worker_errors:{date}     list     7 days, newest 1,000     workers
    openrouter:history                  stream   newest 10,000            any process that commits a transition
    openrouter:models                   hash     26 h, at most 500        workers, service
    openrouter:workers                  hash     fields expire by age     workers
    openrouter:paused                   hash     fields expire by age     operators
    openrouter:events                   channel  --                       any process that changes the state

Another scope, say team-a, puts its name in braces: ``openrouter:{team-a}:state``. The braces are literal,
so on a Redis Cluster all keys of a scope share one slot. Dates are UTC.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from .errors import ConfigurationError

__all__ = ["DEFAULT_SCOPE", "Keys"]

DEFAULT_SCOPE = "default"
_SHOWN = 60
_SCOPE = re.compile(r"[a-z0-9-]{1,40}")


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one scope.

    Raises:
        ConfigurationError: If the scope is not 1 to 40 of ``a-z``, ``0-9`` and ``-``.
    """

    scope: str = DEFAULT_SCOPE

    def __post_init__(self) -> None:
        if not _SCOPE.fullmatch(self.scope):
            raise ConfigurationError(
                f"scope {self.scope[:_SHOWN]!r} cannot be used: write 1 to 40 of a-z, 0-9 and -, such as 'team-a'"
            )

    @property
    def state(self) -> str:
        return self._key("state")

    @property
    def history(self) -> str:
        return self._key("history")

    @property
    def models(self) -> str:
        return self._key("models")

    @property
    def workers(self) -> str:
        return self._key("workers")

    @property
    def paused(self) -> str:
        return self._key("paused")

    @property
    def events(self) -> str:
        return self._key("events")

    def metrics(self, at: float) -> str:
        """The counters of the UTC day that holds ``at`` (Unix seconds)."""
        return self._key(f"metrics:{utc_date(at)}")

    def worker_errors(self, at: float) -> str:
        return self._key(f"worker_errors:{utc_date(at)}")

    def _key(self, name: str) -> str:
        prefix = "openrouter" if self.scope == DEFAULT_SCOPE else f"openrouter:{{{self.scope}}}"
        return f"{prefix}:{name}"


def utc_date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
