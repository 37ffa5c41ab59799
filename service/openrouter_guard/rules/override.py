"""Overrides: their kind, end, author and reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .text import words_of
from .units import DAY_S

__all__ = ["OVERRIDE_MOST_S", "Override", "OverrideKind"]

OVERRIDE_MOST_S = 30 * DAY_S
"""No override lasts longer: an override that is not renewed for a month is forgotten, not decided."""


class OverrideKind(StrEnum):
    """The state that applies in place of the breaker's."""

    FORCED_OPEN = "forced_open"
    """No call may go."""
    FORCED_CLOSED = "forced_closed"
    """Calls go and count; rate limits and cooldowns still hold them back."""
    DISABLED = "disabled"
    """Every call goes, and none counts."""


@dataclass(frozen=True, slots=True)
class Override:
    """An override that ends by itself at ``until`` (Unix seconds, Redis' clock)."""

    kind: OverrideKind
    who: str
    why: str
    until: float

    def __post_init__(self) -> None:
        # People or pipelines write these texts, and many read them. What is stored reads back as the same value:
        # the texts as they are read, and the time in whole microseconds.
        object.__setattr__(self, "who", words_of(self.who))
        object.__setattr__(self, "why", words_of(self.why))
        object.__setattr__(self, "until", round(self.until, 6))

    @property
    def is_open(self) -> bool:
        return self.kind is OverrideKind.FORCED_OPEN
