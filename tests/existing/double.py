"""A double of the existing system: it reads, decides and writes under a lock, and knows none of our fields.

It is as unkind as the original. Each failure writes the breaker's flag anew, whatever stood there; details and log
rows are Python, not JSON; the lock is deleted by whoever has finished; and every exception becomes its "nothing".
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import redis

__all__ = [
    "FIELDS",
    "LOCK",
    "STATE",
    "Checked",
    "ExistingApi",
    "ExistingManager",
    "ExistingReporter",
    "ExistingState",
    "ExistingWorker",
]

STATE, LOCK = "openrouter:state", "openrouter:state:lock"
METRICS, ERRORS = "openrouter:metrics", "openrouter:worker_errors"
LOCK_TIMEOUT_S, STATE_LIFE_S, METRICS_LIFE_S, ERRORS_LIFE_S = 10, 600, 30 * 86_400, 7 * 86_400
FRESH_S, STALE_S = 60, 300
ERRORS_KEPT = 1000
THRESHOLD = 5
GUESS_S = 60
FIELDS = (
    "state", "message", "balance", "usage_today", "usage_month", "last_check", "last_api_call", "last_success",
    "error_details", "consecutive_failures", "circuit_breaker_open", "rate_limit_reset",
)  # fmt: skip
COUNTED = {
    "api_key_invalid", "credits_exhausted", "rate_limited", "service_unavailable", "timeout", "network_error",
}  # fmt: skip
OF_NO_STATE = {"timeout", "network_error", "unknown_error"}
BY_STATUS = {
    401: "api_key_invalid", 402: "credits_exhausted", 429: "rate_limited", 503: "service_unavailable",
}  # fmt: skip
BY_WORDS: Mapping[str, tuple[str, ...]] = {
    "api_key_invalid": ("invalid api key", "unauthorized", "authentication failed"),
    "credits_exhausted": ("insufficient credits", "credits exhausted", "quota exceeded"),
    "rate_limited": ("rate limit", "too many requests"),
    "service_unavailable": ("service unavailable", "server error", "internal error"),
    "timeout": ("timeout", "timed out"),
    "network_error": ("network", "connection", "dns"),
}
Clock = Callable[[], datetime]


def now() -> datetime:
    return datetime.now(UTC)


class ExistingReporter:
    """What a worker of theirs reports with; *client* decodes its answers."""

    def __init__(self, client: redis.Redis, worker_id: str = "", clock: Clock = now) -> None:
        self.redis: Any = client
        self._worker_id = worker_id or self._get_worker_id()
        self._clock = clock

    def report_api_error(
        self, error_message: str, status_code: int | None = None, error_type: str | None = None
    ) -> bool:
        kind = error_type or self._classify_error(error_message, status_code)
        try:
            if not self.redis.set(LOCK, self._worker_id, nx=True, ex=LOCK_TIMEOUT_S):
                self._log(kind, error_message, status_code)
                return False
            try:
                self._write_error(kind, error_message, status_code)
                self._count("failed_calls", _state_of(kind))
                self._log(kind, error_message, status_code)
            finally:
                self.redis.delete(LOCK)
        except redis.RedisError:
            return False
        return True

    def report_api_success(self) -> bool:
        try:
            if not self.redis.set(LOCK, self._worker_id, nx=True, ex=LOCK_TIMEOUT_S):
                return False
            try:
                self._write_success()
                self._count("successful_calls", "active")
            finally:
                self.redis.delete(LOCK)
        except redis.RedisError:
            return False
        return True

    def _write_error(self, kind: str, message: str, status_code: int | None) -> None:
        before = self.redis.hgetall(STATE)
        failures = int(before.get("consecutive_failures", 0)) + (kind in COUNTED)
        at = self._clock()
        fields = {
            "state": _state_of(kind),
            "message": f"Worker reported: {kind}",
            "last_check": at.isoformat(),
            "last_api_call": at.isoformat(),
            "consecutive_failures": str(failures),
            "circuit_breaker_open": "true" if failures >= THRESHOLD else "false",
            "error_details": str(self._row(kind, message, status_code)),
        }
        if kind == "rate_limited":
            fields["rate_limit_reset"] = (at + timedelta(seconds=GUESS_S)).isoformat()
        self.redis.hset(STATE, mapping=fields)
        self.redis.expire(STATE, STATE_LIFE_S)

    def _write_success(self) -> None:
        at = self._clock().isoformat()
        fields = {
            "state": "active",
            "message": "Service active",
            "last_check": at,
            "last_api_call": at,
            "last_success": at,
            "consecutive_failures": "0",
            "circuit_breaker_open": "false",
        }
        self.redis.hset(STATE, mapping=fields)
        self.redis.expire(STATE, STATE_LIFE_S)

    def _row(self, kind: str, message: str, status_code: int | None) -> dict[str, Any]:
        row: dict[str, Any] = {
            "error_type": kind,
            "error_message": message,
            "worker_id": self._worker_id,
            "timestamp": self._clock().isoformat(),
        }
        return row | {"status_code": status_code} if status_code is not None else row

    def _log(self, kind: str, message: str, status_code: int | None) -> None:
        key = f"{ERRORS}:{self._clock():%Y-%m-%d}"
        self.redis.lpush(key, str(self._row(kind, message, status_code)))
        self.redis.ltrim(key, 0, ERRORS_KEPT - 1)
        self.redis.expire(key, ERRORS_LIFE_S)

    def _count(self, outcome: str, state: str) -> None:
        _count(self.redis, self._clock, "total_calls", outcome, f"state_{state}")

    def _classify_error(self, error_message: str, status_code: int | None = None) -> str:
        if status_code in BY_STATUS:
            return BY_STATUS[status_code]
        text = error_message.lower()
        found = (kind for kind, phrases in BY_WORDS.items() if any(phrase in text for phrase in phrases))
        return next(found, "unknown_error")

    def _get_worker_id(self) -> str:
        with contextlib.suppress(OSError):
            found = re.search(r"[0-9a-f]{64}", Path("/proc/self/cgroup").read_text())
            if found:
                return f"worker-{found[0][:12]}"
        return f"worker-{socket.gethostname()}-{os.getpid()}"


@dataclass
class ExistingState:
    """What their manager reads; ``last_check`` is required."""

    state: str
    message: str
    last_check: datetime
    balance: float | None = None
    usage_today: float | None = None
    usage_month: float | None = None
    last_api_call: datetime | None = None
    error_details: str | None = None
    consecutive_failures: int = 0
    last_success: datetime | None = None
    circuit_breaker_open: bool = False
    rate_limit_reset: datetime | None = None


class ExistingManager:
    """What their API and some of their workers read with; *client* decodes its answers."""

    def __init__(self, client: redis.Redis, clock: Clock = now) -> None:
        self.redis: Any = client
        self._clock = clock

    def get_state(self, force_refresh: bool = False) -> ExistingState | None:
        try:
            fields = self.redis.hgetall(STATE)
            if not fields.get("last_check"):
                return None
            found = _read(fields)
        except (redis.RedisError, ValueError):
            return None
        age_s = (self._clock() - found.last_check).total_seconds()
        return found if force_refresh or age_s <= STALE_S else None

    def update_state(
        self,
        state: str,
        message: str,
        balance: float | None = None,
        usage_today: float | None = None,
        usage_month: float | None = None,
        error_details: str | None = None,
        is_api_success: bool = False,
        rate_limit_reset: datetime | None = None,
    ) -> bool:
        try:
            if not self.redis.set(LOCK, "locked", nx=True, ex=LOCK_TIMEOUT_S):
                return False
            try:
                failures = int(self.redis.hget(STATE, "consecutive_failures") or 0)
                failures += state in {"error", "service_unavailable", "rate_limited"}
                failures = 0 if is_api_success else failures
                optional = {
                    "balance": balance, "usage_today": usage_today, "usage_month": usage_month,
                    "error_details": error_details,
                    "rate_limit_reset": rate_limit_reset and rate_limit_reset.isoformat(),
                }  # fmt: skip
                fields = {
                    "state": state,
                    "message": message,
                    "last_check": self._clock().isoformat(),
                    "consecutive_failures": str(failures),
                    "circuit_breaker_open": "true" if failures >= THRESHOLD else "false",
                }
                given = {name: str(value) for name, value in optional.items() if value is not None}
                self.redis.hset(STATE, mapping=fields | given)
                self.redis.expire(STATE, STATE_LIFE_S)
                outcome = "successful_calls" if is_api_success else "failed_calls"
                _count(self.redis, self._clock, "total_calls", outcome, f"state_{state}")
            finally:
                self.redis.delete(LOCK)
        except redis.RedisError:
            return False
        return True

    def is_fresh(self, max_age_seconds: float | None = None) -> bool:
        found = self.get_state(force_refresh=True)
        limit_s = FRESH_S if max_age_seconds is None else max_age_seconds
        return found is not None and (self._clock() - found.last_check).total_seconds() <= limit_s

    def should_skip_api_call(self) -> tuple[bool, str | None]:
        found = self.get_state()
        if found is None:
            return False, None
        if found.circuit_breaker_open:
            return True, "Circuit breaker is open"
        is_limited = found.state == "rate_limited" and found.rate_limit_reset is not None
        if is_limited and found.rate_limit_reset and found.rate_limit_reset > self._clock():
            return True, "Rate limited"
        return False, None


@dataclass(frozen=True)
class Checked:
    """What ``GET {base}/auth/key`` answered: the usage where the key is good."""

    status_code: int = 200
    usage: float = 0.0


class ExistingApi:
    """Their status endpoint: the cache while it is fresh, else one call of OpenRouter that each request makes."""

    def __init__(
        self, manager: ExistingManager, check: Callable[[], Checked], api_key: str = "sk-or-v1-theirs"
    ) -> None:
        self._manager = manager
        self._check = check
        self._api_key = api_key

    def status(self, force_refresh: bool = False) -> dict[str, Any]:
        if not self._api_key:
            return self._answer("api_key_missing", None, is_cached=False)
        if not force_refresh and self._manager.is_fresh() and (known := self._manager.get_state()):
            return self._answer(known.state, known, is_cached=True)
        found = self._check()
        if found.status_code == 200:
            self._manager.update_state(
                "active", "Service active", balance=found.usage, usage_today=found.usage, usage_month=found.usage,
                is_api_success=True,
            )  # fmt: skip
        else:
            state = BY_STATUS.get(found.status_code, "service_unavailable" if found.status_code >= 500 else "error")
            self._manager.update_state(state, f"HTTP {found.status_code}")
        known = self._manager.get_state(force_refresh=True)
        return self._answer(known.state if known else "error", known, is_cached=False)

    def _answer(self, status: str, known: ExistingState | None, *, is_cached: bool) -> dict[str, Any]:
        return {
            "status": status,
            "message": known.message if known else None,
            "balance": known.balance if known else None,
            "usage_today": known.usage_today if known else None,
            "usage_month": known.usage_month if known else None,
            "last_check": known.last_check.isoformat() if known else None,
            "error_details": known.error_details if known else None,
            "consecutive_failures": known.consecutive_failures if known else None,
            "circuit_breaker_open": known.circuit_breaker_open if known else None,
            "cache_hit": is_cached,
        }


class ExistingWorker:
    """One worker of theirs, with a connection of its own; close it."""

    def __init__(self, redis_url: str, worker_id: str = "", clock: Clock = now) -> None:
        self._redis = redis.Redis.from_url(redis_url, decode_responses=True)
        self.reporter = ExistingReporter(self._redis, worker_id, clock)
        self.manager = ExistingManager(self._redis, clock)

    def __enter__(self) -> ExistingWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self._redis.close()

    def report_api_error(self, error_type: str = "service_unavailable") -> bool:
        """False if the report was dropped."""
        return self.reporter.report_api_error("it failed", error_type=error_type)

    def report_api_success(self) -> bool:
        """False if the report was dropped."""
        return self.reporter.report_api_success()

    def should_skip_api_call(self) -> bool:
        return self.manager.should_skip_api_call()[0]

    def read(self) -> dict[str, str]:
        found: Any = self._redis.hgetall(STATE)
        return {name: found.get(name, "") for name in FIELDS}


def _state_of(kind: str) -> str:
    return "error" if kind in OF_NO_STATE else kind


def _count(client: Any, clock: Clock, *counters: str) -> None:
    key = f"{METRICS}:{clock():%Y-%m-%d}"
    for counter in counters:
        client.hincrby(key, counter, 1)
    client.expire(key, METRICS_LIFE_S)


def _read(fields: Mapping[str, str]) -> ExistingState:
    def amount(name: str) -> float | None:
        return float(fields[name]) if fields.get(name) else None

    def moment(name: str) -> datetime | None:
        return datetime.fromisoformat(fields[name]) if fields.get(name) else None

    return ExistingState(
        state=fields["state"],
        message=fields.get("message", ""),
        last_check=datetime.fromisoformat(fields["last_check"]),
        balance=amount("balance"),
        usage_today=amount("usage_today"),
        usage_month=amount("usage_month"),
        last_api_call=moment("last_api_call"),
        error_details=fields.get("error_details") or None,
        consecutive_failures=int(fields.get("consecutive_failures") or 0),
        last_success=moment("last_success"),
        circuit_breaker_open=fields.get("circuit_breaker_open") == "true",
        rate_limit_reset=moment("rate_limit_reset"),
    )
