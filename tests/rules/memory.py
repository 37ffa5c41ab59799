"""The effects of Redis and our two scripts on the state, in memory and in virtual time.

Held to the real ones by ``tests/store/test_memory.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from openrouter_guard.rules import evaluation
from openrouter_guard.rules.breaker import Closed
from openrouter_guard.rules.codec import FIELDS, GUARDS, encode, parse
from openrouter_guard.rules.shared_state import SharedState, next_epoch
from openrouter_guard.rules.signals import SUCCESS, Effect, ErrorType, Signal

__all__ = ["BATCH_LIFE_S", "Memory", "Seen"]

FAILURE = Signal(Effect.FAILURE, ErrorType.SERVICE_UNAVAILABLE)
REFUSAL = Signal(Effect.FAILURE, ErrorType.CREDITS_EXHAUSTED)
SIGNALS: Mapping[str, Signal] = {"S": SUCCESS, "F": FAILURE, "C": REFUSAL}
REPORTER_LIFE_S = 60.0
DECISION_LIFE_S = 2.0
BATCH_LIFE_S = 600.0
"""So long a batch that comes again is known."""
COUNTED = (
    "consecutive_failures",
    "run",
    "run_shares",
    "run_evidence",
    "run_want",
    "run_earlier",
    "question",
    "credit_refusals",
    "breaker",
    "circuit_breaker_open",
)


@dataclass(frozen=True, slots=True)
class Seen:
    """The state as it was read; ``record`` is None where there is none."""

    record: SharedState | None
    now: float
    raw: Mapping[str, str]


@dataclass(slots=True)
class Memory:
    """The state of one scope.

    Attributes:
        now: The server's clock.
        fields: The hash.
        reporters: Of each the last batch, and when it came.
        calls: The day's counter of all calls.
    """

    now: float
    fields: dict[str, str] = field(default_factory=dict)
    reporters: dict[str, tuple[int, float]] = field(default_factory=dict)
    calls: int = 0

    def read(self) -> Seen:
        raw = {name: self.fields[name] for name in FIELDS if name in self.fields}
        return Seen(parse(raw, self.now) if raw else None, self.now, raw)

    def lose(self) -> None:
        """All data, as a flush or a failover to an empty replica does."""
        self.fields, self.reporters, self.calls = {}, {}, 0

    def commit(self, seen: Seen, new: SharedState) -> SharedState | None:
        """Replace the record if nobody changed it since it was read; where there is none, it begins as decided."""
        if any(self.fields.get(name, "") != seen.raw.get(name, "") for name in GUARDS):
            return None
        if not seen.raw.get("epoch"):
            if self.now - seen.now > DECISION_LIFE_S:
                return None
            epoch = max(new.epoch, next_epoch(0, self.now))
            new = replace(new, epoch=epoch, begun=epoch)
        new = replace(new, version=int(self.fields.get("version", "0")) + 1)
        changes = {name: value for name, value in encode(new).items() if seen.raw.get(name, "") != value}
        self._set(changes | {"version": str(new.version)})
        return new

    def count(self, reporter: str, seq: int, epoch: int, runs: Sequence[tuple[str, int]]) -> str:
        """Count a batch, once: ``counted``, ``late`` or ``repeated``."""
        if self.reporters.get(reporter, (0, 0.0))[0] >= seq:
            return "repeated"
        self.reporters = {name: row for name, row in self.reporters.items() if row[1] > self.now - BATCH_LIFE_S}
        self.reporters[reporter] = (seq, self.now)
        self.calls += sum(number for _, number in runs)
        record = self.read().record or SharedState()
        is_late = (
            not isinstance(record.breaker, Closed) or record.legacy_open or (epoch and record.epoch not in (0, epoch))
        )
        if not is_late:
            self._count(record, reporter, epoch, runs)
        live = [seen_at for _, seen_at in self.reporters.values() if seen_at > self.now - REPORTER_LIFE_S]
        self.fields["live_reporters"] = str(len(live))
        return "late" if is_late else "counted"

    def _count(self, record: SharedState, reporter: str, epoch: int, runs: Sequence[tuple[str, int]]) -> None:
        for kind, number in runs:
            for _ in range(number):
                record = evaluation.counted(record, SIGNALS[kind], reporter)
        written = encode(record)
        self._set({name: written[name] for name in COUNTED})
        if not record.epoch:
            self.fields["epoch"] = self.fields["begun"] = str(next_epoch(epoch, self.now))

    def _set(self, changes: Mapping[str, str]) -> None:
        self.fields |= changes
        self.fields = {name: value for name, value in self.fields.items() if value}
