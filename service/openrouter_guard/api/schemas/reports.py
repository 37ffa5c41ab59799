"""The bodies of reports and their answers. A field that is not described is ignored."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from openrouter_guard.rules.error_codes import status_of
from openrouter_guard.rules.parsing import line_of, number, text_of
from openrouter_guard.rules.redaction import redact
from openrouter_guard.rules.signals import MAX_WAIT_S
from openrouter_guard.rules.units import DAY_S
from openrouter_guard.worker.classification.evidence import headers_in

from .fields import (
    BREAKER_EXAMPLE,
    ERROR_TYPE_SCHEMA,
    MESSAGE_MOST,
    RESULTS_MAX,
    SEQUENCE_MAX,
    VERSION_MOST,
    Model,
    Name,
    read_error,
    read_seconds,
    read_status,
)
from .status import BreakerAnswer

__all__ = ["RefusedResult", "ReportAnswer", "ReportBody", "ResultBody", "Verdict"]


class ResultBody(BaseModel):
    """The end of one call to OpenRouter. Text that is too long is cut, and numbers that are too large are capped."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={"examples": [{"success": True, "model": "openai/gpt-4o", "took_seconds": 1.4}]},
    )

    success: bool = Field(strict=True, description="True if the call ended well; a stream, if it reached its end")
    status_code: Annotated[int | None, BeforeValidator(read_status)] = Field(
        default=None, description="HTTP status of the answer, or of the error inside a 200"
    )
    error_type: Annotated[
        str | None, BeforeValidator(lambda value: text_of(value, 100) or None), WithJsonSchema(ERROR_TYPE_SCHEMA)
    ] = Field(
        default=None,
        description="The failure, if there was no answer; any other word counts as unknown_error",
    )
    message: Annotated[str, BeforeValidator(lambda value: text_of(value, MESSAGE_MOST))] = Field(
        default="", description="Message of the API or the client"
    )
    error: Annotated[dict[str, Any] | None, BeforeValidator(read_error)] = Field(
        default=None,
        description="The object under `error` in OpenRouter's answer; inside a 200, its `code` is the status",
    )
    headers: Annotated[dict[str, str], BeforeValidator(headers_in)] = Field(
        default={},
        description="Headers of the answer; the service reads the times, and a refusal by another guard",
    )
    retry_after_seconds: read_seconds(MAX_WAIT_S) = Field(  # type: ignore[valid-type]
        default=None, description="Seconds that the answer asked to wait"
    )
    model: Model = Field(default="", description="The model that was called")
    took_seconds: read_seconds(DAY_S) = Field(default=None, description="Duration of the call in seconds")  # type: ignore[valid-type]
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
                    "circuit_breaker": BREAKER_EXAMPLE,
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
