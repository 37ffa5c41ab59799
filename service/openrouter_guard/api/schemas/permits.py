"""The bodies of requests for permits, and their answers."""

from __future__ import annotations

from enum import StrEnum

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
)

from .fields import (
    BREAKER_EXAMPLE,
    Model,
    Name,
)
from .status import BreakerAnswer

__all__ = ["PermitAnswer", "PermitBody", "Settled", "SettledAnswer"]


class PermitBody(BaseModel):
    """A request to make one call."""

    model_config = ConfigDict(
        frozen=True, json_schema_extra={"examples": [{"worker_id": "go-worker-1", "model": "openai/gpt-4o"}]}
    )

    worker_id: Name = Field(description="The same name as in its reports")
    model: Model = Field(default="", description="The model to call; its own cooldown applies too")


class PermitAnswer(BaseModel):
    """The answer to a request for a permit."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "permit": "WyJnby13b3JrZXItMSIsIiIsMTc3MjM2NjQwMDAwMSwxNzcyMzY2NDAwXQ.4zVgkmBqf0r1bN0hMn1PzTqe",
                    "lease_seconds": 15.0,
                    "ramp": None,
                    "epoch": 1772366400002,
                },
                {"permit": None, "lease_seconds": None, "ramp": 1.0, "epoch": 1772366400003},
            ]
        },
    )

    permit: str | None = Field(description="Use it to renew and to return the permit; null if calls need none")
    lease_seconds: float | None = Field(
        description="The permit expires after this time unless it is renewed; null without a permit"
    )
    ramp: float | None = Field(
        description="Share of all calls that may go, from 0 to 1; below 1 just after an outage; null with a permit"
    )
    epoch: int = Field(description="Epoch in which the call begins; report it with the result")


class Settled(StrEnum):
    """The effect of returning a permit."""

    SETTLED = "settled"
    RETURNED = "returned"
    LATE = "late"


class SettledAnswer(BaseModel):
    """The outcome of a permit."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [{"verdict": "settled", "retry_after_seconds": None, "circuit_breaker": BREAKER_EXAMPLE}]
        },
    )

    verdict: Settled = Field(
        description="settled: the result closed or opened the breaker; returned: another call may take the "
        "permit; late: the permit had expired, so the result appears only in the metrics"
    )
    retry_after_seconds: float | None = Field(description="Seconds that calls must wait; null while they may go")
    circuit_breaker: BreakerAnswer
