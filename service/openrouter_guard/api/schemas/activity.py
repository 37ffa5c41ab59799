"""The bodies of the answers about history, workers and models. Times are ISO 8601 with an offset."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict  # pydantic accepts no other one before Python 3.12

from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.rules.codec import iso
from openrouter_guard.rules.shared_state import Transition

from .status import Moment

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
    """One transition of the breaker. An alert is not a transition, and has the same state before and after."""

    model_config = shown(**_OPENED)

    epoch: int = Field(description="Number of the transition, which never repeats")
    before: BreakerState = Field(alias="from")
    after: BreakerState = Field(alias="to")
    reason: str = Field(description="The reason, such as the error type that opened it, or the kind of an override")
    by: str = Field(description="Author: a worker, a health service, or a person")
    at: Moment | None
    error_rate: float | None = Field(default=None, description="Share of failed calls; null unless this is an alert")

    @classmethod
    def of(cls, change: Transition) -> Self:
        return cls.model_validate(
            {
                "epoch": change.epoch,
                "from": change.before,
                "to": change.after,
                "reason": change.reason,
                "by": change.by,
                "at": iso(change.at) or None,
            }
        )


class HistoryAnswer(BaseModel):
    """The transitions of the breaker, newest first."""

    model_config = shown(transitions=[_OPENED], next_before=None, scope="default")

    transitions: list[TransitionAnswer]
    next_before: str | None = Field(description="Send it as `before` to continue; null at the end")
    scope: str


class WorkerError(BaseModel):
    """The last failure that a worker reported."""

    model_config = shown(**_ERROR)

    at: Moment | None
    error_type: str
    error_message: str
    status_code: int | None


class WorkerAnswer(BaseModel):
    """One worker."""

    model_config = ConfigDict(frozen=True)

    worker_id: str
    version: str | None = Field(description="Version of the library; null for a worker of an earlier system")
    last_seen: Moment | None
    live: bool = Field(description="True if it was seen within the last 90 s")
    last_error: WorkerError | None = Field(description="Its last error among the fleet's newest 1,000")


class WorkersAnswer(BaseModel):
    """The workers that report, the most recent first."""

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
    total: int = Field(description="Workers seen within ten minutes, including those beyond the limit")
    live: int = Field(description="Workers seen within the last 90 s")
    scope: str


class PausedDetails(TypedDict, total=False):
    """An operator's report of its cluster; it may have more fields."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    resource: Annotated[str, Field(description="The resources that pause workloads, separated by commas")]
    workloads: Annotated[list[str], Field(description="Paused workloads, as kind/name; of very many, only some")]
    paused: Annotated[int, Field(description="Number of paused workloads")]


class ClusterAnswer(BaseModel):
    """The workloads that the operator of one cluster has paused."""

    model_config = ConfigDict(frozen=True)

    cluster: str
    last_seen: Moment | None = Field(description="Time of the operator's last report, which is kept for a day")
    details: PausedDetails = Field(description="As reported by the operator")


class PausedAnswer(BaseModel):
    """The workloads that operators have paused."""

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

    model: str = Field(description="Name; :free stands for all free models, which share a cap")
    cooling: bool = Field(description="True while its calls wait and those of other models go")
    reason: str | None = Field(description="Reason of the cooldown; null without one")
    retry_at: Moment | None = Field(description="End of the cooldown; null without one")
    failures: int = Field(description="Failures of its providers in a row")
    last_failure: Moment | None
    last_call: Moment | None


class ModelsAnswer(BaseModel):
    """The models that cool down or fail, and the most recent working ones; those that cool down come first."""

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
    degraded: bool = Field(description="Redis cannot be read: these are the last known values")
    scope: str


class GateAnswer(BaseModel):
    """Calls may go."""

    model_config = shown(permitted=True, ramp=1.0, epoch=1772366400000, degraded=False, scope="default")

    permitted: bool
    ramp: float = Field(
        description="Share of all calls that may go, above 0 and up to 1; below 1 just after an outage"
    )
    epoch: int = Field(description="Epoch of a call that begins now; report it with the result")
    degraded: bool = Field(
        description="Redis cannot be read, and no deadline is known: calls may go, as in the worker library"
    )
    scope: str
