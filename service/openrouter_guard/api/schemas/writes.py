"""The bodies of the requests that write, and their answers. Fields that are not described are refused."""

from __future__ import annotations

import math
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from openrouter_guard.rules.error_codes import status_of
from openrouter_guard.rules.models import clean
from openrouter_guard.rules.override import OverrideKind
from openrouter_guard.rules.parsing import line_of, number, text_of
from openrouter_guard.rules.redaction import redact
from openrouter_guard.rules.signals import MAX_WAIT_S, ErrorType
from openrouter_guard.worker.classification.evidence import headers_in

from .status import BreakerAnswer

__all__ = [
    "SEQUENCE_MAX",
    "OverrideAnswered",
    "OverrideBody",
    "PermitAnswer",
    "PermitBody",
    "RefusedResult",
    "ReportAnswer",
    "ReportBody",
    "ResultBody",
    "Settled",
    "SettledAnswer",
    "Verdict",
    "Words",
]

RESULTS_MAX = 1000
MESSAGE_MOST = 1000
VERSION_MOST = 50
_ERROR_TYPE = {"anyOf": [{"type": "string", "examples": [*ErrorType]}, {"type": "null"}]}
SEQUENCE_MAX = 2**53 - 1
"""The largest whole number that every JSON reader, and Redis' scripts, represent exactly."""


def _line(words: str) -> str:
    """Return the visible text: characters that change the direction of text, or are invisible, are removed."""
    if line := line_of(words):
        return line
    raise ValueError("write visible text")


Words = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$"),
    AfterValidator(_line),
]
"""One line, for the history."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[!-~]+$")]
Model = Annotated[str, BeforeValidator(clean), WithJsonSchema({"type": "string"})]
"""As typed by users: cleaned and cut, never refused."""


def _moment(value: Any) -> datetime:
    """Parse an unambiguous time: numbers, and times without an offset, are refused."""
    try:
        at = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError("write a time such as 2026-03-01T12:00:00+00:00") from None
    if at.tzinfo is None:
        raise ValueError("write the offset too, such as 2026-03-01T12:00:00+00:00")
    return at


When = Annotated[datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})]


def _code(value: Any) -> int | None:
    """Return the status of an answer; None if it is not one."""
    found = number(value, 100, 1e6)
    return None if found is None else min(int(found), 599)


def _seconds(most: float) -> Any:
    def clamped(value: Any) -> float | None:
        found = number(value, 0.0, math.inf)
        return None if found is None else min(found, most)

    schema = {"anyOf": [{"type": "number", "minimum": 0}, {"type": "null"}]}
    return Annotated[float | None, BeforeValidator(clamped), WithJsonSchema(schema)]


def _object(value: Any) -> dict[str, Any] | None:
    """Return the object under ``error``, which some clients turn into text."""
    if isinstance(value, str) and value:
        return {"message": text_of(value, MESSAGE_MOST)}
    return value if isinstance(value, dict) and value else None


class ResultBody(BaseModel):
    """The end of one call to OpenRouter. Text that is too long is cut, and numbers that are too large are capped."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={"examples": [{"success": True, "model": "openai/gpt-4o", "took_seconds": 1.4}]},
    )

    success: bool = Field(strict=True, description="True if the call ended well; a stream, if it reached its end")
    status_code: Annotated[int | None, BeforeValidator(_code)] = Field(
        default=None, description="HTTP status of the answer, or of the error inside a 200"
    )
    error_type: Annotated[
        str | None, BeforeValidator(lambda value: text_of(value, 100) or None), WithJsonSchema(_ERROR_TYPE)
    ] = Field(
        default=None,
        description="The failure, if there was no answer; any other word counts as unknown_error",
    )
    message: Annotated[str, BeforeValidator(lambda value: text_of(value, MESSAGE_MOST))] = Field(
        default="", description="Message of the API or the client"
    )
    error: Annotated[dict[str, Any] | None, BeforeValidator(_object)] = Field(
        default=None,
        description="The object under `error` in OpenRouter's answer; inside a 200, its `code` is the status",
    )
    headers: Annotated[dict[str, str], BeforeValidator(headers_in)] = Field(
        default={},
        description="Headers of the answer; the service reads the times, and a refusal by another guard",
    )
    retry_after_seconds: _seconds(MAX_WAIT_S) = Field(  # type: ignore[valid-type]
        default=None, description="Seconds that the answer asked to wait"
    )
    model: Model = Field(default="", description="The model that was called")
    took_seconds: _seconds(86_400.0) = Field(default=None, description="Duration of the call in seconds")  # type: ignore[valid-type]
    epoch: Annotated[int | None, BeforeValidator(lambda value: number(value, 0, SEQUENCE_MAX))] = Field(
        default=None, description="Epoch in which the call began, if different from the report's"
    )

    @property
    def status(self) -> int | None:
        """The status of the call: the error's own status if it is inside a successful answer."""
        if self.error and (self.status_code or 0) < 400 and (self.status_code or not self.error_type):
            return status_of(self.error)
        return self.status_code

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        failed = self.error_type is not None or (self.status or 0) >= 400
        if self.success and (failed or self.retry_after_seconds is not None):
            raise ValueError("a success has no error_type, no error, no wait and no status_code of 400 or more")
        if not self.success and not failed:
            raise ValueError("a failure needs an error_type, an error, or a status_code of 400 or more")
        return self


class RefusedResult(BaseModel):
    """A result that was left out of its report."""

    model_config = ConfigDict(frozen=True)

    index: int = Field(description="Position in the report, from 0")
    name: str = Field(description="The wrong field; empty if the fields contradict each other")
    detail: str


class ReportBody(BaseModel):
    """The results of one worker's calls, in order."""

    model_config = ConfigDict(
        frozen=True,
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

    worker_id: Name = Field(description="The same in every report of one worker, and unique to it")
    version: Annotated[str, BeforeValidator(lambda value: line_of(redact(text_of(value)), VERSION_MOST))] = Field(
        default="", description="Version of the worker, for the list of workers"
    )
    sequence: int | None = Field(
        default=None,
        strict=True,
        ge=1,
        le=SEQUENCE_MAX,
        description="Grows with every report of this worker, so a repeated report counts once. Send it always "
        "or never",
    )
    epoch: int = Field(
        default=0,
        strict=True,
        ge=0,
        le=SEQUENCE_MAX,
        description="circuit_breaker.epoch of the status when the calls began; 0 if unknown. Calls that began "
        "before the breaker last changed decide nothing",
    )
    results: list[ResultBody] = Field(min_length=1, max_length=RESULTS_MAX)
    _refused: tuple[RefusedResult, ...] = PrivateAttr(default=())

    @property
    def refused(self) -> tuple[RefusedResult, ...]:
        """The results that were left out because they cannot be used."""
        return self._refused

    @model_validator(mode="wrap")
    @classmethod
    def _without_odd_ones(cls, data: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        """Leave out single unusable results, and keep the others."""
        results = data.get("results") if isinstance(data, dict) else None
        if not isinstance(results, list) or len(results) > RESULTS_MAX:
            return validate(data)
        kept, refused = _sorted_out(results)
        # If none is left, the errors are reported as for any other body.
        report = validate({**data, "results": kept} if kept else data)
        report._refused = tuple(refused)  # noqa: SLF001  its own
        return report


def _sorted_out(results: list[Any]) -> tuple[list[ResultBody], list[RefusedResult]]:
    kept, refused = [], []
    for index, result in enumerate(results):
        try:
            kept.append(ResultBody.model_validate(result))
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            name = ".".join(map(str, first["loc"]))
            detail = first["msg"].removeprefix("Value error, ")
            refused.append(RefusedResult(index=index, name=name, detail=detail))
    return kept, refused


_BREAKER: dict[str, Any] = {
    "state": "closed",
    "reason": None,
    "opened_at": None,
    "retry_at": None,
    "epoch": 1772366400000,
    "override": None,
    "nobody_tries": False,
    "ramp": 1.0,
}


Verdict = Literal["counted", "late", "repeated"]


class ReportAnswer(BaseModel):
    """The outcome of a report."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "results": 3,
                    "refused": [],
                    "verdict": "counted",
                    "retry_after_seconds": None,
                    "circuit_breaker": _BREAKER,
                }
            ]
        },
    )

    results: int = Field(description="Number of accepted results")
    refused: list[RefusedResult] = Field(description="The other results, each with the reason")
    verdict: Verdict = Field(
        description="counted; late: the calls are of an earlier epoch, or the breaker is not closed, so the "
        "results appear only in the metrics; repeated: this sequence, or a later one, arrived "
        "before"
    )
    retry_after_seconds: float | None = Field(description="Seconds that calls must wait; null while they may go")
    circuit_breaker: BreakerAnswer


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
            "examples": [{"verdict": "settled", "retry_after_seconds": None, "circuit_breaker": _BREAKER}]
        },
    )

    verdict: Settled = Field(
        description="settled: the result closed or opened the breaker; returned: another call may take the "
        "permit; late: the permit had expired, so the result appears only in the metrics"
    )
    retry_after_seconds: float | None = Field(description="Seconds that calls must wait; null while they may go")
    circuit_breaker: BreakerAnswer


class OverrideBody(BaseModel):
    """An override of the breaker."""

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
        description="forced_open: no call may go; forced_closed: calls go and count; disabled: all calls go "
        "and none counts"
    )
    who: Words = Field(description="Name of the person, for the history")
    why: Words = Field(description="The reason, shown in the status")
    until: When = Field(description="End of the override, within 30 days")


class OverrideAnswered(BaseModel):
    """The breaker after the change."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "circuit_breaker": {
                        **_BREAKER,
                        "state": "open",
                        "reason": "forced_open",
                        "ramp": 0.0,
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
