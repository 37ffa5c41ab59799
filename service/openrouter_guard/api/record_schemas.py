"""The bodies of the answers about what happened and who reports. Times are ISO 8601 with an offset."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict  # pydantic takes no other one before Python 3.12

from openrouter_guard.rules.breaker import Phase
from openrouter_guard.rules.shared_state import Transition
from openrouter_guard.rules.wire import iso

from .schemas import Moment

__all__ = [
    "ClusterAnswer",
    "GateAnswer",
    "HistoryAnswer",
    "ModelState",
    "ModelsAnswer",
    "PausedDetails",
    "PausedAnswer",
    "TransitionAnswer",
    "WorkerAnswer",
    "WorkerError",
    "WorkersAnswer",
    "shown",
]


def shown(**example: Any) -> ConfigDict:
    return ConfigDict(frozen=True, populate_by_name=True, json_schema_extra={"examples": [example]})


_OPENED = {
    "epoch": 1772366400001,
    "from": "closed",
    "to": "open",
    "reason": "service_unavailable",
    "by": "worker-a",
    "at": "2026-03-01T12:00:30+00:00",
    "error_rate": None,
}
_ERROR = {
    "at": "2026-03-01T12:00:29+00:00",
    "error_type": "service_unavailable",
    "error_message": "HTTP 503",
    "status_code": 503,
}


class TransitionAnswer(BaseModel):
    """One change of the breaker; an alarm, which is none, has the same state before and after."""

    model_config = shown(**_OPENED)

    epoch: int = Field(description="Its number, which never repeats")
    before: Phase = Field(alias="from")
    after: Phase = Field(alias="to")
    reason: str = Field(description="Such as the type of the errors that opened it, or what a person decided")
    by: str = Field(description="Who wrote it: a worker, a health service, or a person")
    at: Moment | None
    error_rate: float | None = Field(default=None, description="Share of calls that failed; null unless an alarm")

    @classmethod
    def of(cls, change: Transition) -> Self:
        return cls.model_validate(
            {
                "epoch": change.epoch,
                "from": change.before,
                "to": change.after,
                "reason": change.reason,
                "by": change.by,
                "at": iso(change.at_s) or None,
            }
        )


class HistoryAnswer(BaseModel):
    """The changes of the breaker, newest first."""

    model_config = shown(transitions=[_OPENED], next_before=None, scope="default")

    transitions: list[TransitionAnswer]
    next_before: str | None = Field(description="What to ask for as `before` to go on; null at the end")
    scope: str


class WorkerError(BaseModel):
    """What a worker last reported as failed."""

    model_config = shown(**_ERROR)

    at: Moment | None
    error_type: str
    error_message: str
    status_code: int | None


class WorkerAnswer(BaseModel):
    """One worker."""

    model_config = ConfigDict(frozen=True)

    worker_id: str
    version: str | None = Field(description="Of the library; null for a worker of an earlier system")
    last_seen: Moment | None
    live: bool = Field(description="Whether it was seen within the last 90 s")
    last_error: WorkerError | None = Field(description="Among the newest 1,000 of the fleet")


class WorkersAnswer(BaseModel):
    """Who reports, those seen last first."""

    model_config = shown(
        workers=[
            {
                "worker_id": "worker-a",
                "version": "0.1.0",
                "last_seen": "2026-03-01T12:00:30+00:00",
                "live": True,
                "last_error": _ERROR,
            }
        ],
        total=1,
        live=1,
        scope="default",
    )

    workers: list[WorkerAnswer]
    total: int = Field(description="How many were seen within ten minutes, beyond the limit too")
    live: int = Field(description="How many of them within the last 90 s")
    scope: str


class PausedDetails(TypedDict, total=False):
    """What an operator tells of its cluster; there may be more than is described here."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    resource: Annotated[str, Field(description="The resources that pause something, comma separated")]
    workloads: Annotated[list[str], Field(description="What is paused, as kind/name; not all of very many")]
    paused: Annotated[int, Field(description="How many workloads are paused")]


class ClusterAnswer(BaseModel):
    """What the operator of one cluster has paused."""

    model_config = ConfigDict(frozen=True)

    cluster: str
    last_seen: Moment | None = Field(description="When its operator said so; that holds for a day")
    details: PausedDetails = Field(description="As the operator tells it")


class PausedAnswer(BaseModel):
    """What operators have paused."""

    model_config = shown(
        clusters=[
            {
                "cluster": "production",
                "last_seen": "2026-03-01T12:00:40+00:00",
                "details": {"resource": "team-a/default", "workloads": ["Deployment/chat"], "paused": 1},
            }
        ],
        scope="default",
    )

    clusters: list[ClusterAnswer]
    scope: str


class ModelState(BaseModel):
    """One model."""

    model_config = ConfigDict(frozen=True)

    model: str = Field(description="Its name; :free stands for all that are free and share a cap")
    cooling: bool = Field(description="Whether its calls wait while others go")
    reason: str | None = Field(description="Why; null unless it cools down")
    retry_at: Moment | None = Field(description="When calls may go; null unless it cools down")
    failures: int = Field(description="In a row, of its providers")
    last_failure: Moment | None
    last_call: Moment | None


class ModelsAnswer(BaseModel):
    """The models that cool down or fail, and the latest called that work; those that cool down first."""

    model_config = shown(
        models=[
            {
                "model": "openai/gpt-4o",
                "cooling": True,
                "reason": "service_unavailable",
                "retry_at": "2026-03-01T12:00:35+00:00",
                "failures": 5,
                "last_failure": "2026-03-01T12:00:30+00:00",
                "last_call": "2026-03-01T12:00:30+00:00",
            }
        ],
        total=1,
        cooling=1,
        degraded=False,
        scope="default",
    )

    models: list[ModelState]
    total: int
    cooling: int
    degraded: bool = Field(description="Redis cannot be read: these are the last known")
    scope: str


class GateAnswer(BaseModel):
    """Calls may go."""

    model_config = shown(permitted=True, ramp=1.0, epoch=1772366400000, degraded=False, scope="default")

    permitted: bool
    ramp: float = Field(description="Which share of all calls may go, above 0 to 1: just after an outage not all")
    epoch: int = Field(description="In which a call begins now, to be reported with its result")
    degraded: bool = Field(description="Redis cannot be read, and no deadline is known: calls go, as workers do too")
    scope: str
