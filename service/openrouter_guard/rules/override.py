"""What a person decided over the breaker's head: until when, who, and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .redaction import redact

__all__ = ["OVERRIDE_MOST_S", "Override", "OverrideKind"]

OVERRIDE_MOST_S = 30 * 86_400.0
"""No override holds longer: what nobody looks at for a month is forgotten, not decided."""


class OverrideKind(StrEnum):
    """What holds instead of what the breaker says."""

    FORCED_OPEN = "forced_open"
    """No call may go."""
    FORCED_CLOSED = "forced_closed"
    """Calls go, and count; rate limits and models that cool down still hold them back."""
    DISABLED = "disabled"
    """Every call goes, and none counts."""


@dataclass(frozen=True, slots=True)
class Override:
    """A decision that ends by itself at ``until_s`` (Unix seconds, Redis' clock)."""

    kind: OverrideKind
    who: str
    why: str
    until_s: float

    def __post_init__(self) -> None:
        # People write them, or a pipeline does: what they are shown with is read by many.
        object.__setattr__(self, "who", redact(self.who))
        object.__setattr__(self, "why", redact(self.why))

    @property
    def is_open(self) -> bool:
        return self.kind is OverrideKind.FORCED_OPEN
