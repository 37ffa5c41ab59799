"""The body of an override, and its answer. A field that is not described is refused."""

from __future__ import annotations

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
)

from openrouter_guard.rules.override import OverrideKind

from .fields import (
    BREAKER_EXAMPLE,
    When,
    Words,
)
from .status import BreakerAnswer

__all__ = ["OverrideAnswered", "OverrideBody"]


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
                        **BREAKER_EXAMPLE,
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
