"""The bodies of the answers, as shown in the OpenAPI document. Times are ISO 8601 with an offset."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema
from typing_extensions import TypedDict  # pydantic accepts no other one before Python 3.12

from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.rules.override import OverrideKind
from openrouter_guard.rules.signals import OpenRouterState

__all__ = [
    "STATUS_EXAMPLES",
    "BreakerAnswer",
    "DayMetrics",
    "Health",
    "MetricsAnswer",
    "ModelAnswer",
    "Moment",
    "OverrideAnswer",
    "Problem",
    "Readiness",
    "Source",
    "StatusAnswer",
    "WrongParameter",
]

UNKNOWN: Literal["unknown"] = "unknown"
"""OpenRouter was not asked yet, neither by a worker nor by a health check."""
Status: TypeAlias = OpenRouterState | Literal["unknown"]
# Text and not datetime: pydantic writes "Z" for UTC, which older clients of this API cannot read.
Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class Source(StrEnum):
    """The source of an answer."""

    CACHE = "cache"
    LIVE = "live"
    STALE = "stale"


_ACTIVE: dict[str, Any] = {
    "status": "active",
    "message": "Service active",
    "balance": 87.5,
    "balance_at": "2026-03-01T12:00:00+00:00",
    "usage_today": 1.25,
    "usage_month": 12.5,
    "last_check": "2026-03-01T12:00:00+00:00",
    "error_details": None,
    "consecutive_failures": 0,
    "circuit_breaker_open": False,
    "cache_hit": True,
    "circuit_breaker": {
        "state": "closed",
        "reason": None,
        "opened_at": None,
        "retry_at": None,
        "epoch": 1772366400000,
        "override": None,
        "nobody_tries": False,
        "ramp": 1.0,
    },
    "age_seconds": 12.034,
    "source": "cache",
    "degraded": False,
    "rate_limit_reset": None,
    "scope": "default",
    "models": {},
}
_OPEN: dict[str, Any] = _ACTIVE | {
    "status": "service_unavailable",
    "message": "Worker reported: service_unavailable",
    "error_details": '{"timestamp": "2026-03-01T12:00:30+00:00", "worker_id": "worker-a", '
    '"error_type": "service_unavailable", "error_message": "HTTP 503", "status_code": 503}',
    "consecutive_failures": 5,
    "circuit_breaker_open": True,
    "circuit_breaker": {
        "state": "open",
        "reason": "service_unavailable",
        "opened_at": "2026-03-01T12:00:30+00:00",
        "retry_at": "2026-03-01T12:02:30+00:00",
        "epoch": 1772366400001,
        "override": None,
        "nobody_tries": False,
        "ramp": 0.0,
    },
}
STATUS_EXAMPLES: list[Any] = [_ACTIVE, _OPEN]


class OverrideAnswer(BaseModel):
    """The state that applies in place of the breaker's."""

    model_config = ConfigDict(frozen=True)

    kind: OverrideKind
    who: str
    why: str
    until: Moment = Field(description="End of the override")


class BreakerAnswer(BaseModel):
    """The fleet's circuit breaker."""

    model_config = ConfigDict(frozen=True)

    state: BreakerState | None = Field(description="null if the shared state was never read")
    reason: str | None = Field(description="Why it opened; null while closed")
    opened_at: Moment | None = Field(description="Start of the outage")
    retry_at: Moment | None = Field(description="Time from which trial calls may go; null unless open")
    epoch: int = Field(description="Grows with every transition")
    override: OverrideAnswer | None = Field(description="The override that stands; null without one")
    nobody_tries: bool = Field(
        description="True if the breaker has been half-open for a minute without a trial call: no worker asks "
        "for a permit, and no service has an API key to check with"
    )
    ramp: float = Field(
        description="Share of all calls that may go without a permit, from 0 to 1: 1 while closed and not rate "
        "limited, less just after an outage"
    )


class ModelAnswer(BaseModel):
    """A model whose calls wait while others go."""

    model_config = ConfigDict(frozen=True)

    reason: str
    retry_at: Moment = Field(description="End of the cooldown")


class StatusAnswer(BaseModel):
    """The state of OpenRouter. Amounts are US dollars."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": STATUS_EXAMPLES})

    status: Status = Field(
        description="The state; unknown before a worker or a health check has first asked OpenRouter"
    )
    message: str
    balance: float | None = Field(description="Remaining credit; null for a key without a limit")
    balance_at: Moment | None = Field(description="Time of the balance and the usage; a failed check keeps them")
    usage_today: float | None
    usage_month: float | None
    last_check: Moment | None = Field(
        description="Time of the last health check; null if there was none. A worker's report is not a check"
    )
    error_details: str | None = Field(
        description="JSON text about the last error; plain text if an earlier system wrote it"
    )
    consecutive_failures: int = Field(description="Failures in a row, of the whole fleet")
    circuit_breaker_open: bool = Field(description="True while the breaker is open or half-open")
    cache_hit: bool = Field(description="True if the answer came from memory")
    circuit_breaker: BreakerAnswer
    age_seconds: float | None = Field(description="Seconds since the last check; null if there was none")
    source: Source = Field(
        description="cache: from memory, younger than the fresh threshold; stale: from memory, older; live: "
        "from a check that this request waited for"
    )
    degraded: bool = Field(description="Redis cannot be read: this is the last known state")
    rate_limit_reset: Moment | None = Field(description="End of the rate limit; null without one")
    scope: str
    models: dict[str, ModelAnswer] = Field(description="Models whose calls wait; :free stands for all free models")


class DayMetrics(TypedDict, total=False):
    """One UTC day. Counters at zero are left out, and there may be more than are described here.

    The rates and the availability are 0 to 1.
    """

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    total_calls: int
    successful_calls: int
    failed_calls: int
    neutral_calls: int
    not_permitted_calls: int
    health_checks: int
    health_checks_failed: int
    cache_hits: int
    cache_misses: int
    error_rate: float
    latency_p50_ms: int
    latency_p95_ms: int
    latency_p99_ms: int
    seconds_closed: float
    seconds_open: float
    seconds_half_open: float
    availability: float | None


class LatencyPercentiles(TypedDict):
    """In milliseconds; null where there were no calls."""

    p50: int | None
    p95: int | None
    p99: int | None


class MetricsAnswer(BaseModel):
    """The fleet's counters by UTC day, and statistics from them; days without any are left out."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "metrics": {
                        "2026-03-01": {
                            "total_calls": 1200,
                            "successful_calls": 1190,
                            "failed_calls": 10,
                            "health_checks": 1440,
                            "health_checks_failed": 1,
                            "cache_hits": 86000,
                            "cache_misses": 12,
                            "error_rate": 0.008333,
                            "latency_p50_ms": 840,
                            "latency_p95_ms": 4100,
                            "latency_p99_ms": 9800,
                            "seconds_closed": 43080.0,
                            "seconds_open": 120.0,
                            "seconds_half_open": 0.0,
                            "availability": 0.997222,
                        }
                    },
                    "days": 7,
                    "availability": {"1": 0.997222, "7": 0.999603, "30": 0.999907},
                    "latency_ms": {"p50": 840, "p95": 4100, "p99": 9800},
                    "errors_by_worker": {"worker-a": 8, "worker-b": 2},
                    "generated_at": "2026-03-01T12:00:00+00:00",
                }
            ]
        },
    )

    metrics: dict[str, DayMetrics] = Field(description="Counters by date, newest first")
    days: int
    availability: dict[str, float | None] = Field(
        description="Share of the recorded time of the last 1, 7 and 30 UTC days in which calls were not refused"
    )
    latency_ms: LatencyPercentiles = Field(description="Percentiles of the calls in the requested days")
    errors_by_worker: dict[str, int] = Field(
        description="Errors by worker, of the newest 1,000 errors of the requested days; at most seven workers"
    )
    generated_at: Moment


class Health(BaseModel):
    """The state of this process alone."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [{"status": "ok"}]})

    status: Literal["ok"]


class Readiness(BaseModel):
    """Whether this process takes requests, and whether it reaches Redis."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [{"status": "ok", "redis": "up"}]})

    status: Literal["ok", "waiting"] = Field(
        description="waiting: the process waits for Redis, and knows no state yet"
    )
    redis: Literal["up", "away"]


def _left_out(schema: dict[str, Any]) -> None:
    """Remove the default of a field that is left out if it is empty: clients would rely on it."""
    del schema["default"]


class WrongParameter(BaseModel):
    """The error in one parameter, or in one field of a body."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    where: str = Field(alias="in", description="Location, such as query or body")
    name: str
    detail: str


class Problem(BaseModel):
    """A problem document of RFC 9457."""

    model_config = ConfigDict(frozen=True)

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    errors: list[WrongParameter] | SkipJsonSchema[None] = Field(
        default=None, description="The wrong parameters", json_schema_extra=_left_out
    )
    reason: str | SkipJsonSchema[None] = Field(
        default=None, description="The reason why calls wait, as in the status", json_schema_extra=_left_out
    )
