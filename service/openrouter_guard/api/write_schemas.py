"""The bodies of the requests that write, and their answers. What is not described is refused."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema, model_validator

from openrouter_guard.rules.models import clean
from openrouter_guard.rules.override import OverrideKind
from openrouter_guard.rules.signals import MAX_WAIT_S, ErrorType

from .schemas import BreakerAnswer

__all__ = [
    "SEQUENCE_MAX",
    "OverrideAnswered",
    "OverrideBody",
    "PermitAnswer",
    "PermitBody",
    "ReportAnswer",
    "ReportBody",
    "ResultBody",
    "Settled",
    "SettledAnswer",
    "Verdict",
    "Words",
]

RESULTS_MAX = 1000
SEQUENCE_MAX = 2**53 - 1
"""The largest whole number that every JSON reader, and Redis' scripts, can tell from the next one."""

Words = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$")
]
"""One line, for the history."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[!-~]+$")]
Model = Annotated[str, BeforeValidator(clean), WithJsonSchema({"type": "string"})]
"""As users type it: cleaned and cut, never refused."""


def _moment(value: Any) -> datetime:
    """A time of which everybody knows when it is: numbers and times without an offset are refused."""
    try:
        at = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError("write a time such as 2026-03-01T12:00:00+00:00") from None
    if at.tzinfo is None:
        raise ValueError("write the offset too, such as 2026-03-01T12:00:00+00:00")
    return at


When = Annotated[datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})]


class ResultBody(BaseModel):
    """The end of one call to OpenRouter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    success: bool = Field(strict=True, description="Whether it ended well, a stream at its end")
    status_code: int | None = Field(
        default=None, strict=True, ge=100, le=599, description="Of the answer, or of the error inside a 200"
    )
    error_type: ErrorType | None = Field(default=None, description="What went wrong, where there was no answer")
    message: str = Field(default="", max_length=1000, description="What the API or the client said")
    error: dict[str, Any] | None = Field(default=None, description="The object under `error` in OpenRouter's answer")
    retry_after_seconds: float | None = Field(
        default=None, strict=True, ge=0, le=MAX_WAIT_S, description="How long the answer asked to wait"
    )
    model: Annotated[str, StringConstraints(max_length=200, pattern=r"^[!-~]*$")] = Field(
        default="", description="Which model was called"
    )
    took_seconds: float | None = Field(default=None, strict=True, ge=0, le=86_400, description="How long it took")

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        failed = self.error_type is not None or (self.status_code is not None and self.status_code >= 400)
        if self.success and (failed or self.error or self.retry_after_seconds is not None):
            raise ValueError("a success has no error_type, no error, no wait and no status_code of 400 or more")
        if not self.success and not failed:
            raise ValueError("a failure needs an error_type, or a status_code of 400 or more")
        return self


class ReportBody(BaseModel):
    """What one worker's calls came to, in their order."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "worker_id": "go-worker-1",
                    "sequence": 17,
                    "results": [
                        {"success": True, "model": "openai/gpt-4o", "took_seconds": 1.4},
                        {"success": False, "status_code": 429, "retry_after_seconds": 30},
                        {"success": False, "error_type": "timeout", "message": "no answer within 60 s"},
                    ],
                }
            ]
        },
    )

    worker_id: Name = Field(description="The same in every report of one worker, and of no other")
    version: Annotated[str, StringConstraints(max_length=50, pattern=r"^[!-~]*$")] = Field(
        default="", description="Of the worker, for the list of workers"
    )
    sequence: int | None = Field(
        default=None,
        strict=True,
        ge=1,
        le=SEQUENCE_MAX,
        description="Grows with every report of this worker: a report that is sent again counts once. "
        "Give it always or never",
    )
    epoch: int = Field(
        default=0,
        strict=True,
        ge=0,
        le=SEQUENCE_MAX,
        description="circuit_breaker.epoch of the status when the calls began: what began before the breaker last "
        "changed decides nothing; 0 if unknown",
    )
    results: list[ResultBody] = Field(min_length=1, max_length=RESULTS_MAX)


_BREAKER: dict[str, Any] = {
    "state": "closed",
    "reason": None,
    "opened_at": None,
    "retry_at": None,
    "epoch": 1772366400000,
    "override": None,
}


Verdict = Literal["counted", "late", "repeated"]


class ReportAnswer(BaseModel):
    """What became of a report."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {"results": 3, "verdict": "counted", "retry_after_seconds": None, "circuit_breaker": _BREAKER}
            ]
        },
    )

    results: int
    verdict: Verdict = Field(
        description="counted; late: of an earlier epoch, or the breaker is not closed, so that it is in the metrics "
        "alone; repeated: this sequence, or a later one, was here before"
    )
    retry_after_seconds: float | None = Field(description="How long calls must wait; null while they may go")
    circuit_breaker: BreakerAnswer


class PermitBody(BaseModel):
    """Who asks to make one call."""

    model_config = ConfigDict(
        frozen=True, json_schema_extra={"examples": [{"worker_id": "go-worker-1", "model": "openai/gpt-4o"}]}
    )

    worker_id: Name = Field(description="As in its reports")
    model: Model = Field(default="", description="Which model it wants to call: one that cools down waits alone")


class PermitAnswer(BaseModel):
    """Leave to make one call."""

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

    permit: str | None = Field(description="To renew it and to give it back; null where calls need none")
    lease_seconds: float | None = Field(description="It is lost unless it is renewed within; null without one")
    ramp: float | None = Field(
        description="Which share of all calls may go, from 0 to 1: just after an outage not all; null beside a permit"
    )
    epoch: int = Field(description="In which the call begins, to be reported with its result")


class Settled(StrEnum):
    """What giving a permit back did."""

    SETTLED = "settled"
    RETURNED = "returned"
    LATE = "late"


class SettledAnswer(BaseModel):
    """What became of a permit."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [{"verdict": "settled", "retry_after_seconds": None, "circuit_breaker": _BREAKER}]
        },
    )

    verdict: Settled = Field(
        description="settled: the result closed or opened the breaker; returned: another call may take the permit; "
        "late: it was held no longer, so that the result is in the metrics alone"
    )
    retry_after_seconds: float | None = Field(description="How long calls must wait; null while they may go")
    circuit_breaker: BreakerAnswer


class OverrideBody(BaseModel):
    """What a person decides over the breaker's head."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "kind": "forced_open",
                    "who": "ada@example.com",
                    "why": "The invoice is in dispute",
                    "until": "2026-03-01T14:00:00+00:00",
                }
            ]
        },
    )

    kind: OverrideKind = Field(
        description="forced_open: no call may go; forced_closed: calls go and count; disabled: all go, none counts"
    )
    who: Words = Field(description="For the history")
    why: Words = Field(description="For whoever looks at the status")
    until: When = Field(description="When it ends by itself: within 30 days")


class OverrideAnswered(BaseModel):
    """The breaker after the decision."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "circuit_breaker": {
                        **_BREAKER,
                        "state": "open",
                        "reason": "forced_open",
                        "retry_at": "2026-03-01T14:00:00+00:00",
                        "override": {
                            "kind": "forced_open",
                            "who": "ada@example.com",
                            "why": "The invoice is in dispute",
                            "until": "2026-03-01T14:00:00+00:00",
                        },
                    }
                }
            ]
        },
    )

    circuit_breaker: BreakerAnswer
