"""The shared state under the names of existing readers and writers.

You replace the import, and your code goes on: on a failure of Redis, or a bug, a method returns "nothing" rather than
raise. Overrides are the exception.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial, wraps
from typing import Any, ClassVar, Self, TypeVar, cast

from openrouter_guard.errors import ConfigurationError
from openrouter_guard.keys import DEFAULT_SCOPE
from openrouter_guard.log_once import LogOnce
from openrouter_guard.rules import health_checks
from openrouter_guard.rules.admission import fleet_refusal
from openrouter_guard.rules.breaker import BreakerState, HalfOpen, Open
from openrouter_guard.rules.codec import iso
from openrouter_guard.rules.evaluation import evaluate
from openrouter_guard.rules.override import OVERRIDE_MOST_S, Override, OverrideKind
from openrouter_guard.rules.parsing import number
from openrouter_guard.rules.redaction import redact
from openrouter_guard.rules.shared_state import SharedState, Upstream, fresh
from openrouter_guard.rules.signals import MAX_WAIT_S, OpenRouterState, classify_error_type
from openrouter_guard.rules.transitions import overridden, released, reset
from openrouter_guard.store import Batch, Seen, Store, Timeouts
from openrouter_guard.worker.names import worker_name
from openrouter_guard.worker.reporting.batches import ResultBatch, last_of

from . import state_data
from .clients import Handed, settings_of

__all__ = ["OpenRouterStateManager"]

Method = TypeVar("Method", bound=Callable[..., Coroutine[Any, Any, Any]])
COUNTER_MOST = 1e15
OPEN, LIMITED = "Circuit breaker is open", "Rate limited"
_UNKNOWN = {"state": "unknown", "success_count": 0, "fail_count": 0, "note": "Nothing is known of the breaker"}
_FAILURES = frozenset({OpenRouterState.ERROR, OpenRouterState.SERVICE_UNAVAILABLE, OpenRouterState.RATE_LIMITED})


def _or(nothing: Callable[[], object]) -> Callable[[Method], Method]:
    """A method that returns *nothing* if Redis is away or anything else fails, and logs one line."""

    def careful(method: Method) -> Method:
        @wraps(method)
        async def call(self: OpenRouterStateManager, *args: Any, **kwargs: Any) -> Any:
            try:
                found = await method(self, *args, **kwargs)
            except Exception as error:  # noqa: BLE001  whoever asks has their own call to make
                self._trouble.failed(error)
                return nothing()
            self._trouble.worked()
            return found

        return cast("Method", call)

    return careful


class OpenRouterStateManager:
    """Reads and writes the shared state, and overrides the breaker.

    While Redis is away or the state cannot be decoded, reading returns None, False, ``(False, None)`` or ``{}``, and
    writing returns False. Only the methods for overrides raise.

    Attributes:
        redis: The given client, or one for the address; None for Sentinels and Clusters.
    """

    STATE_KEY: ClassVar[str] = "openrouter:state"
    METRICS_KEY: ClassVar[str] = "openrouter:metrics"
    LOCK_KEY: ClassVar[str] = "openrouter:state:lock"
    DEFAULT_TTL: ClassVar[int] = 300
    FRESH_THRESHOLD: ClassVar[int] = 60
    STALE_THRESHOLD: ClassVar[int] = 300
    LOCK_TIMEOUT: ClassVar[int] = 10

    def __init__(self, redis_client: Any = None, scope: str = DEFAULT_SCOPE, *, redis_url: str | None = None) -> None:
        """Without a client or an address, ``REDIS_URL`` is used.

        Args:
            redis_client: A client of redis-py, whether it decodes its answers or not, or an address. Of a client only
                the address and the login are used.
            scope: Scope of the state.
            redis_url: The same as an address, by keyword.

        Raises:
            ConfigurationError: If it is neither, or the scope is invalid.
        """
        given = redis_client if redis_client is not None else redis_url
        self._settings = settings_of(given, scope)
        self._handed = Handed(given, self._settings.redis_url)
        self._worker_id = worker_name(self._settings.worker_id)
        self._reporter = health_checks.CHECKER_PREFIX + secrets.token_hex(4)
        self._seq = 0
        self._trouble = LogOnce("the shared state cannot be used, calls go on without it", "the shared state is back")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._live = self._new_store()

    @property
    def redis(self) -> Any:
        return self._handed.client

    @property
    def _store(self) -> Store:
        """Connections belong to one event loop, and a task queue may begin a new one for each task."""
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop:
            self._live = self._new_store()
        self._loop = loop
        return self._live

    def _new_store(self) -> Store:
        settings = self._settings
        return Store(settings.redis, settings.scope, Timeouts(settings.redis_timeout_s, settings.redis_timeout_s))

    # -- reading ------------------------------------------------------------------------------------------------

    @_or(lambda: None)
    async def get_state(self, force_refresh: bool = False) -> state_data.OpenRouterStateData | None:
        """Return the state, or None if there is none, or nothing was reported for ``STALE_THRESHOLD`` seconds.

        Args:
            force_refresh: Return it however old it is.
        """
        seen = await self._store.read()
        if seen.record is None or not seen.record.upstream.last_check_at:
            return None
        age_s = seen.now - seen.record.upstream.last_check_at
        return self._data(seen) if force_refresh or age_s <= self.STALE_THRESHOLD else None

    @_or(lambda: dict(_UNKNOWN))
    async def breaker_status(self) -> dict[str, Any]:
        """The breaker as a panel shows it.

        Returns:
            ``state`` (closed, open, half_open or unknown), ``success_count`` (of the fleet, today), ``fail_count``
            (in a row) and ``note``.
        """
        seen = await self._store.read()
        if seen.record is None:
            return dict(_UNKNOWN)
        record = self._current(seen.record, seen.now)
        (today,) = (await self._store.metrics(1, seen.now)).values() or ({},)
        return {
            "state": record.phase(seen.now).value,
            "success_count": _count(today.get("successful_calls", "0")),
            "fail_count": record.breaker.failures,
            "note": _note(record, seen.now),
        }

    @_or(lambda: False)
    async def is_fresh(self, max_age_seconds: float | None = None) -> bool:
        """Return whether anything was reported in the last so many seconds (default ``FRESH_THRESHOLD``)."""
        limit_s = self.FRESH_THRESHOLD if max_age_seconds is None else max_age_seconds
        seen = await self._store.read()
        return seen.record is not None and seen.now - seen.record.upstream.last_check_at <= limit_s

    @_or(lambda: (False, None))
    async def should_skip_api_call(self) -> tuple[bool, str | None]:
        """Return whether calls must wait, and the reason."""
        seen = await self._store.read()
        if seen.record is None:
            return False, None
        record = self._current(seen.record, seen.now)
        if record.phase(seen.now) is not BreakerState.CLOSED:
            return True, OPEN
        upstream = record.upstream
        is_claimed = upstream.state is OpenRouterState.RATE_LIMITED and upstream.claimed_reset_at > seen.now
        return (True, LIMITED) if is_claimed or fleet_refusal(record, seen.now) else (False, None)

    @_or(dict)
    async def get_metrics(self, days: int = 7) -> dict[str, dict[str, int | str]]:
        """Return the counters of the last *days* UTC days that have any, by date; any number is allowed."""
        if days < 1:
            return {}
        seen = await self._store.read()
        found = await self._store.metrics(int(min(days, 1000)), seen.now)
        return {date: {name: _count(value) for name, value in day.items()} for date, day in found.items()}

    # -- writing ------------------------------------------------------------------------------------------------

    @_or(lambda: False)
    async def update_state(
        self,
        state: OpenRouterState | str,
        message: str,
        balance: float | None = None,
        usage_today: float | None = None,
        usage_month: float | None = None,
        error_details: str | None = None,
        is_api_success: bool = False,
        rate_limit_reset: datetime | None = None,
    ) -> bool:
        """Report a health check of the application; return whether it is in Redis.

        While the breaker is closed, a success ends a run of failures, and a failure counts as one. Otherwise, a
        success counts as one good check and closes nothing by itself.

        Args:
            state: Result of the check.
            message: Message for people.
            balance: In US dollars, as the usage; values that are not given stay.
            usage_today: Since midnight UTC.
            usage_month: Since the first of the month.
            error_details: Text about the error.
            is_api_success: Whether OpenRouter answered well.
            rate_limit_reset: Time until which OpenRouter wants calls to wait.
        """
        told = _reported_upstream(state, message, error_details, balance, usage_today, usage_month)
        reset_at = 0.0 if rate_limit_reset is None else rate_limit_reset.timestamp()

        def decide(record: SharedState | None, now: float) -> SharedState:
            known = self._current(record or fresh(now), now)
            limited = replace(told, rate_limit_reset_at=min(reset_at, now + MAX_WAIT_S))
            return health_checks.after_update(
                known, limited, now=now, policy=self._settings.policy, by=self._worker_id
            )

        await self._store.change(decide)
        runs = (("S", 1),) if is_api_success else (("F", 1),) if told.state in _FAILURES and not reset_at else ()
        await self._count(runs, f"state_{told.state}", is_good=is_api_success)
        return True

    @_or(lambda: False)
    async def report_worker_error(
        self, error_type: str, error_message: str, status_code: int | None = None, worker_id: str | None = None
    ) -> bool:
        """Report a failed call of a worker; return whether it is in Redis."""
        signal = classify_error_type(error_type, error_message, status_code)
        at = (await self._store.read()).now
        pending = last_of(
            deque[ResultBatch](), 0, at, worker_name(worker_id or self._worker_id), self._settings.policy
        )
        pending.add(signal, at)
        self._seq += 1
        await self._store.count(pending.batch(f"i{self._reporter}", self._seq, now=at), at=at)
        doubt = partial(health_checks.doubted, signal=signal, policy=self._settings.policy, by=self._worker_id)
        await self._store.change(lambda record, now: record and self._current(doubt(record, now=now), now))
        return True

    async def _count(self, runs: Sequence[tuple[str, int]], counter: str, *, is_good: bool) -> None:
        self._seq += 1
        counters = {"total_calls": 1, "successful_calls" if is_good else "failed_calls": 1, counter: 1}
        batch = Batch(0, self._reporter, self._seq, runs, counters=counters)
        await self._store.count(batch, at=(await self._store.read()).now)
        await self._store.change(lambda record, now: record and self._current(record, now))

    # -- a person decides ---------------------------------------------------------------------------------------

    async def set_override(self, kind: OverrideKind | str, *, who: str, why: str, for_s: float) -> None:
        """Override the breaker for all; it replaces an earlier override and ends by itself.

        Args:
            kind: ``forced_open``: no call may go; ``forced_closed``: calls go and count; ``disabled``: every call
                goes and none counts.
            who: Name of the person, for the history.
            why: The reason, shown in the status.
            for_s: Seconds until it ends, 30 days at the most.

        Raises:
            ConfigurationError: If an argument is missing or unknown, or there is no end within 30 days.
            StoreError: If Redis does not accept it.
        """
        chosen = _kind(kind)
        if not (who and why and 0 < for_s <= OVERRIDE_MOST_S):
            raise ConfigurationError(
                "an override needs who, why and an end within 30 days: write for_s=600 for ten minutes"
            )

        def decide(record: SharedState | None, now: float) -> SharedState:
            override = Override(chosen, who, why, now + for_s)
            return overridden(record or fresh(now), override, now)

        await self._store.change(decide)

    async def clear_override(self, *, who: str) -> None:
        """End the override, if there is one.

        Raises:
            StoreError: If Redis does not accept it.
        """
        await self._store.change(lambda record, now: record and released(record, by=who, now=now))

    async def reset(self, *, who: str) -> None:
        """Close the breaker now, and end an override; calls come back in a ramp, and a rate limit stands.

        Raises:
            StoreError: If Redis does not accept it.
        """

        def decide(record: SharedState | None, now: float) -> SharedState | None:
            # Close whatever is shown as open, even if it is not stored yet.
            return record and reset(self._current(record, now), by=who, now=now)

        await self._store.change(decide)

    async def close(self) -> None:
        """Close the library's own connections; a given client stays open."""
        await self._handed.close()
        await self._store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _current(self, record: SharedState, now: float) -> SharedState:
        return evaluate(record, now=now, policy=self._settings.policy, by=self._worker_id)

    def _data(self, seen: Seen) -> state_data.OpenRouterStateData:
        record = self._current(seen.record or SharedState(), seen.now)
        upstream = record.upstream
        return state_data.OpenRouterStateData(
            state=upstream.state,
            message=upstream.message,
            balance=upstream.balance,
            usage_today=upstream.usage_today,
            usage_month=upstream.usage_month,
            last_check=datetime.fromtimestamp(upstream.last_check_at, UTC),
            last_api_call=_moment(upstream.last_api_call_at),
            error_details=upstream.error_details or None,
            consecutive_failures=record.breaker.failures,
            last_success=_moment(upstream.last_success_at),
            circuit_breaker_open=record.phase(seen.now) is not BreakerState.CLOSED,
            rate_limit_reset=_moment(max(upstream.rate_limit_reset_at, upstream.claimed_reset_at)),
        )


def _kind(text: str) -> OverrideKind:
    try:
        return OverrideKind(text)
    except ValueError:
        words = ", ".join(OverrideKind)
        raise ConfigurationError(f"override {text!r} is not known: write one of {words}") from None


def _reported_upstream(
    state: OpenRouterState | str,
    message: str,
    details: str | None,
    balance: float | None,
    usage_today: float | None,
    usage_month: float | None,
) -> Upstream:
    try:
        known = OpenRouterState(state)
    except ValueError:
        known = OpenRouterState.ERROR
    return Upstream(
        state=known,
        message=redact(str(message)),
        balance=balance,
        usage_today=usage_today,
        usage_month=usage_month,
        error_details=redact(str(details or "")),
    )


def _note(record: SharedState, now: float) -> str:
    standing = record.standing(now)
    if standing is not None:
        return f"{standing.kind} by {standing.who} until {iso(standing.until)}: {standing.why}"
    match record.breaker:
        case Open(reason=reason, until=until):
            return f"Shared by the fleet: {reason}, trial calls from {iso(until)}"
        case HalfOpen(reason=reason):
            return f"Shared by the fleet: {reason}, trial calls may go"
        case _:
            return "Shared by the fleet"


def _moment(at: float) -> datetime | None:
    return datetime.fromtimestamp(at, UTC) if at else None


def _count(text: str) -> int | str:
    found = number(text, -COUNTER_MOST, COUNTER_MOST)
    return int(found) if found is not None and found.is_integer() else text
