"""The worker's local copy of the shared state, and the clock that goes with it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from openrouter_guard.rules.breaker import Closed, Phase
from openrouter_guard.rules.record import Record, block_s

__all__ = ["View", "monotonic_offset"]


@dataclass(frozen=True, slots=True)
class View:
    """What a worker knows.

    Attributes:
        record: The state as last read, with what follows from it.
        offset_s: Redis' clock minus this process' monotonic clock: no jump of the wall clock moves a deadline.
        is_free: Whether calls may go without a look at the clock.
    """

    record: Record
    offset_s: float
    is_free: bool = field(init=False)

    def __post_init__(self) -> None:
        limited = self.record.upstream.rate_limit_reset_s > self.now_s
        object.__setattr__(self, "is_free", isinstance(self.record.breaker, Closed) and not limited)

    @property
    def now_s(self) -> float:
        return time.monotonic() + self.offset_s

    @property
    def phase(self) -> Phase:
        return self.record.phase(self.now_s)

    def block_s(self) -> tuple[float, str] | None:
        return block_s(self.record, self.now_s)


def monotonic_offset(server_now_s: float) -> float:
    return server_now_s - time.monotonic()
