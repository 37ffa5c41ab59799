"""The shared state under the names that existing readers use."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar, Self

from openrouter_guard.errors import ConfigurationError
from openrouter_guard.keys import DEFAULT_SCOPE
from openrouter_guard.rules.breaker import Phase, Policy
from openrouter_guard.rules.override import Override, OverrideKind
from openrouter_guard.rules.parsing import number
from openrouter_guard.rules.record import Record, block_s, fresh, overridden, released, settled
from openrouter_guard.rules.signals import OpenRouterState
from openrouter_guard.store import Seen, Store

__all__ = ["OpenRouterStateData", "OpenRouterStateManager"]

COUNTER_MOST = 10**15


@dataclass(frozen=True, slots=True)
class OpenRouterStateData:
    """The state of the upstream. Amounts are US dollars, times have an offset.

    Attributes:
        circuit_breaker_open: Whether the breaker is not closed.
        error_details: JSON about the last error.
    """

    state: OpenRouterState
    message: str
    balance: float | None = None
    usage_today: float | None = None
    usage_month: float | None = None
    last_check: datetime | None = None
    last_api_call: datetime | None = None
    error_details: str | None = None
    consecutive_failures: int = 0
    last_success: datetime | None = None
    circuit_breaker_open: bool = False
    rate_limit_reset: datetime | None = None


class OpenRouterStateManager:
    """Reads the shared state, and overrides the breaker; the rest is written by guards, reporters and the service.

    Every method raises:
        StoreError: If Redis cannot be read.
    """

    DEFAULT_TTL: ClassVar[int] = 300
    FRESH_THRESHOLD: ClassVar[int] = 60
    STALE_THRESHOLD: ClassVar[int] = 300
    LOCK_TIMEOUT: ClassVar[int] = 10

    def __init__(self, redis_url: str, scope: str = DEFAULT_SCOPE) -> None:
        self._store = Store(redis_url, scope)

    async def get_state(self, force_refresh: bool = False) -> OpenRouterStateData | None:
        """The state, or None if there is none or its last check is older than ``STALE_THRESHOLD`` seconds.

        Args:
            force_refresh: Return it however old it is.
        """
        seen = await self._store.read()
        if seen.record is None:
            return None
        age_s = seen.now_s - seen.record.upstream.last_check_s
        return _data(seen) if force_refresh or age_s <= self.STALE_THRESHOLD else None

    async def is_fresh(self, max_age_seconds: float | None = None) -> bool:
        """Whether the last check is at most that old (default ``FRESH_THRESHOLD``)."""
        limit_s = self.FRESH_THRESHOLD if max_age_seconds is None else max_age_seconds
        seen = await self._store.read()
        return seen.record is not None and seen.now_s - seen.record.upstream.last_check_s <= limit_s

    async def should_skip_api_call(self) -> tuple[bool, str | None]:
        """Whether calls are to wait, and why."""
        seen = await self._store.read()
        if seen.record is None:
            return False, None
        record = _current(seen.record, seen.now_s)
        if record.phase(seen.now_s) is not Phase.CLOSED:
            return True, "Circuit breaker is open"
        return (True, "Rate limited") if block_s(record, seen.now_s) else (False, None)

    async def get_metrics(self, days: int = 7) -> dict[str, dict[str, int | str]]:
        """The counters of the last *days* UTC days that have any, by date."""
        seen = await self._store.read()
        found = await self._store.metrics(days, seen.now_s)
        return {date: {name: _count(value) for name, value in day.items()} for date, day in found.items()}

    async def set_override(self, kind: OverrideKind | str, *, who: str, why: str, for_s: float) -> None:
        """Override the breaker for all; it replaces an earlier override and ends by itself.

        Args:
            kind: ``forced_open``: no call may go; ``forced_closed``: calls go and count; ``disabled``: every call
                goes and none counts.
            who: Who decided it, for the history.
            why: The reason, for whoever looks at the status.
            for_s: Seconds until it ends.

        Raises:
            ConfigurationError: If a word is missing or unknown, or there is no end.
        """
        chosen = _kind(kind)
        if not (who and why and 0 < for_s < float("inf")):
            raise ConfigurationError("an override needs who, why and an end: write for_s=600 for ten minutes")

        def decide(record: Record | None, now_s: float) -> Record:
            override = Override(chosen, who, why, round(now_s + for_s, 6))
            return overridden(record or fresh(now_s), override, now_s)

        await self._store.change(decide)

    async def clear_override(self, *, who: str) -> None:
        """End the override, if there is one: the breaker decides again."""
        await self._store.change(lambda record, now_s: record and released(record, by=who, now_s=now_s))

    async def close(self) -> None:
        await self._store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _kind(text: str) -> OverrideKind:
    try:
        return OverrideKind(text)
    except ValueError:
        words = ", ".join(OverrideKind)
        raise ConfigurationError(f"override {text!r} is not known: write one of {words}") from None


def _current(record: Record, now_s: float) -> Record:
    return settled(record, now_s=now_s, policy=Policy(), by="reader")


def _data(seen: Seen) -> OpenRouterStateData:
    record = _current(seen.record or Record(), seen.now_s)
    upstream = record.upstream
    return OpenRouterStateData(
        state=upstream.state,
        message=upstream.message,
        balance=upstream.balance,
        usage_today=upstream.usage_today,
        usage_month=upstream.usage_month,
        last_check=_moment(upstream.last_check_s),
        last_api_call=_moment(upstream.last_api_call_s),
        error_details=upstream.error_details or None,
        consecutive_failures=record.breaker.failures,
        last_success=_moment(upstream.last_success_s),
        circuit_breaker_open=record.phase(seen.now_s) is not Phase.CLOSED,
        rate_limit_reset=_moment(upstream.limited_until_s),
    )


def _moment(at_s: float) -> datetime | None:
    return datetime.fromtimestamp(at_s, UTC) if at_s else None


def _count(text: str) -> int | str:
    found = number(text, -COUNTER_MOST, COUNTER_MOST)
    return int(found) if found is not None and found.is_integer() else text
