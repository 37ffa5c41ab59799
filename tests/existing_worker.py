"""A worker as it was before this product, on the same keys: it reads all, decides, and writes all, under a lock.

It knows neither version nor epoch, drops its report while somebody else holds the lock, and never half-opens.
"""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime
from typing import Any

import redis

__all__ = ["ExistingWorker"]

STATE, LOCK = "openrouter:state", "openrouter:state:lock"
LOCK_TIMEOUT_S, STATE_LIFE_S, METRICS_LIFE_S = 10, 600, 30 * 86_400
THRESHOLD = 5
FIELDS = (
    "state", "message", "balance", "usage_today", "usage_month", "last_check", "last_api_call", "last_success",
    "error_details", "consecutive_failures", "circuit_breaker_open", "rate_limit_reset",
)  # fmt: skip


class ExistingWorker:
    """Reports as existing workers do; close it."""

    def __init__(self, redis_url: str) -> None:
        self._redis = redis.Redis.from_url(redis_url, decode_responses=True)

    def __enter__(self) -> ExistingWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self._redis.close()

    def report_api_error(self, error_type: str = "service_unavailable") -> bool:
        """False if the report was dropped."""
        return self._locked(lambda: self._failed(error_type))

    def report_api_success(self) -> bool:
        """False if the report was dropped."""
        return self._locked(self._succeeded)

    def should_skip_api_call(self) -> bool:
        return self._redis.hget(STATE, "circuit_breaker_open") == "true"

    def _locked(self, report: Any) -> bool:
        token = secrets.token_hex(8)
        if not self._redis.set(LOCK, token, nx=True, ex=LOCK_TIMEOUT_S):
            return False
        try:
            report()
        finally:
            if self._redis.get(LOCK) == token:
                self._redis.delete(LOCK)
        return True

    def _failed(self, error_type: str) -> None:
        fields, now = self.read(), _now()
        failures = int(fields["consecutive_failures"] or 0) + 1
        is_open = failures >= THRESHOLD or fields["circuit_breaker_open"] == "true"
        self._write(
            fields,
            state=error_type,
            message=f"Worker reported: {error_type}",
            error_details=json.dumps({"error_type": error_type}),
            consecutive_failures=str(failures),
            circuit_breaker_open="true" if is_open else "false",
            last_api_call=now,
        )
        self._count("total_calls", "failed_calls", f"state_{error_type}")

    def _succeeded(self) -> None:
        now = _now()
        self._write(
            self.read(),
            state="active",
            message="Service active",
            error_details="",
            consecutive_failures="0",
            circuit_breaker_open="false",
            last_api_call=now,
            last_success=now,
        )
        self._count("total_calls", "successful_calls", "state_active")

    def read(self) -> dict[str, str]:
        found: Any = self._redis.hgetall(STATE)
        return {name: found.get(name, "") for name in FIELDS}

    def _write(self, fields: dict[str, str], **changes: str) -> None:
        whole: dict[Any, Any] = fields | changes
        self._redis.hset(STATE, mapping=whole)
        self._redis.expire(STATE, STATE_LIFE_S)

    def _count(self, *counters: str) -> None:
        key = f"openrouter:metrics:{_now()[:10]}"
        for counter in counters:
            self._redis.hincrby(key, counter, 1)
        self._redis.expire(key, METRICS_LIFE_S)


def _now() -> str:
    return datetime.now(UTC).isoformat()
