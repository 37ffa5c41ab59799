"""Waiting results in order, with little memory however long Redis is away."""

from __future__ import annotations

import json
import math
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from openrouter_guard.rules import latency
from openrouter_guard.rules.breaker import Policy
from openrouter_guard.rules.codec import iso, parse_iso
from openrouter_guard.rules.models import TOLD_MOST, Run
from openrouter_guard.rules.question import NOTHING, Evidence
from openrouter_guard.rules.signals import Effect, Signal
from openrouter_guard.rules.text import json_text
from openrouter_guard.rules.units import DAY_S
from openrouter_guard.store import Batch

__all__ = ["ResultBatch", "error_details", "last_of"]

_ERRORS_KEPT = 1000
TOO_OLD_S = 30.0
"""Results older than this are counted in the metrics and decide nothing."""
METRICS_ONLY = -1
_COUNTED_AS = ("total_calls", "successful_calls", "state_active")
_ACTIVE = {"state": "active", "message": "Service active", "error_details": ""}


@dataclass(slots=True)
class ResultBatch:
    """Results of one epoch and one UTC day, merged.

    If ``is_timed``, its reporter answers questions to the fleet, and tells when calls began.
    """

    epoch: int
    worker_id: str
    since: float
    policy: Policy = Policy()
    successes: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    counted: Counter[str] = field(default_factory=Counter)
    took_s: float = 0.0
    by_latency: list[int] = field(default_factory=lambda: [0] * len(latency.FIELDS))
    errors: deque[str] = field(default_factory=lambda: deque(maxlen=_ERRORS_KEPT))
    fields: Mapping[str, str] = field(default_factory=dict)
    models: dict[str, Run] = field(default_factory=dict)
    last_api_call_at: float = 0.0
    last_success_at: float = 0.0
    first_failure_at: float = 0.0
    evidence: Evidence = NOTHING
    untimed: int = 0
    failed: int = 0
    slow: int = 0
    is_timed: bool = False
    last_begun_at: float = 0.0
    earlier: int = 0

    @property
    def decides_since(self) -> float:
        """The end of the oldest result that decides something; results before the last success do not."""
        return self.first_failure_at or self.last_success_at or self.since

    @property
    def counters(self) -> Counter[str]:
        """Additions to the counters of the day."""
        took = Counter({name: count for name, count in zip(latency.FIELDS, self.by_latency, strict=True) if count})
        took[latency.SUM] = round(self.took_s * 1000)
        return self.counted + took + Counter(dict.fromkeys(_COUNTED_AS, self.successes))

    def takes(self, epoch: int, at: float) -> bool:
        """Return whether a result may be merged into this batch."""
        same_day = at // DAY_S == self.since // DAY_S
        return epoch == self.epoch and same_day and at - self.decides_since <= TOO_OLD_S

    def succeed(self, at: float, took_s: float | None) -> None:
        """Add a successful call: :meth:`add` for the usual case, and quick."""
        self.successes += 1
        self.last_api_call_at = self.last_success_at = at
        if self.first_failure_at:
            self._succeed_in_run(at, took_s)
        else:
            self.fields = _ACTIVE
        if took_s is not None:
            self.last_begun_at = max(self.last_begun_at, at - took_s)
            self._took(took_s)
            self.slow += took_s >= self.policy.slow_s
        else:
            self.untimed += 1

    def _succeed_in_run(self, at: float, took_s: float | None) -> None:
        if self.is_timed and took_s is not None and self.evidence.outlives(at - took_s, at):
            self.earlier += 1
            return
        self.failures, self.first_failure_at, self.evidence, self.earlier = Counter(), 0.0, NOTHING, 0
        self.fields = _ACTIVE

    def add(
        self, signal: Signal, at: float, took_s: float | None = None, news: Mapping[str, Run] | None = None
    ) -> None:
        """Add the result of a call.

        Args:
            signal: Its signal for the fleet.
            at: When it ended, by the server's clock.
            took_s: Its duration; None if unknown.
            news: News of its model; see :meth:`.Notes.take`.
        """
        for name, run in (news or {}).items():
            if name in self.models or len(self.models) < TOLD_MOST:
                self.models.setdefault(name, Run()).add(run)
        if signal.effect is Effect.SUCCESS:
            self.succeed(at, took_s)
            return
        self.counted["total_calls"] += 1
        if signal.effect is Effect.NEUTRAL:
            self.counted["neutral_calls"] += 1
        else:
            self._fail(signal, at, took_s)

    def absorb(self, late: ResultBatch) -> None:
        """Take over the metrics and models of *late*, and nothing that decides."""
        self.counted += late.counters
        self.errors.extend(late.errors)
        for name, run in late.models.items():
            self.models.setdefault(name, Run()).add(run)

    def move(self, by_s: float) -> None:
        """Move all moments *by_s* seconds, to another clock."""
        self.since += by_s
        for name in ("last_api_call_at", "last_success_at", "first_failure_at", "last_begun_at"):
            setattr(self, name, getattr(self, name) + by_s if getattr(self, name) else 0.0)
        self.evidence = self.evidence.moved(by_s)
        for run in self.models.values():
            run.until += by_s if run.until else 0.0
        self.errors = deque((_move_error(error, by_s) for error in self.errors), maxlen=_ERRORS_KEPT)
        if details := self.fields.get("error_details"):
            self.fields = {**self.fields, "error_details": _move_error(details, by_s)}

    def batch(self, reporter: str, seq: int | None, *, now: float, answers: bool = False) -> Batch:
        """Return the batch to be counted.

        Args:
            reporter: Name of the reporter.
            seq: Sequence of the batch; None for one that is not sent again.
            now: The time.
            answers: Whether the reporter answers questions to the fleet about calls that began at some time: then it
                reports when the failed ones began.
        """
        told = self.evidence if answers and self.evidence.timed else None
        runs = (("S", self.successes), *self.failures.items())
        return Batch(
            epoch=METRICS_ONLY if now - self.decides_since > TOO_OLD_S else self.epoch,
            reporter=reporter,
            seq=seq,
            runs=tuple(run for run in runs if run[1]),
            fields={**self.fields, **self._times()},
            counters=self.counters,
            errors=tuple(self.errors),
            models=self.models,
            last_success_at=self.last_success_at,
            first_failure_at=self.first_failure_at,
            window=self._window() if self.policy.watches_rates else None,
            evidence=(told.timed, told.began_at, told.took_s, told.longest_s) if told else None,
            are_timed=answers and not self.untimed,
            last_begun_at=self.last_begun_at,
            earlier=self.earlier if told else 0,
        )

    def _window(self) -> tuple[int, int, int, int]:
        return self.successes + self.failed, self.failed, self.slow, math.ceil(self.policy.window_s)

    def _fail(self, signal: Signal, at: float, took_s: float | None) -> None:
        error_type = signal.reported or "unknown_error"
        state = signal.reported.state if signal.reported else "error"
        self.counted["failed_calls"] += 1
        self.counted[f"state_{state}"] += 1
        if took_s is not None:
            self._took(took_s)
        details = error_details(signal, self.worker_id, at)
        self.errors.append(details)
        if signal.effect is Effect.FAILURE:
            self.failed += 1
            self.slow += (took_s or 0.0) >= self.policy.slow_s
            self.failures["C" if signal.refuses_credit else "F"] += 1
            self.first_failure_at = self.first_failure_at or at
            self.evidence = self.evidence.after(0.0 if took_s is None else at - took_s, at)
            self.fields = {
                "state": str(state),
                "message": f"Worker reported: {error_type}",
                "error_details": details,
            }
            self.last_api_call_at = at

    def _took(self, took_s: float) -> None:
        # In a list, added up at the end: a Counter would double the time per call.
        self.by_latency[latency.index_of(took_s)] += 1
        self.took_s += took_s

    def _times(self) -> dict[str, str]:
        # Written once for all results: that was two fifths of the cost of a report.
        called, succeeded = self.last_api_call_at, self.last_success_at
        if not called:
            return {}
        at = iso(called)
        times = {"last_check": at, "last_api_call": at}
        return times | {"last_success": at if succeeded == called else iso(succeeded)} if succeeded else times


def error_details(signal: Signal, worker_id: str, at: float) -> str:
    """One error as the log of worker errors and ``error_details`` hold it."""
    return json_text(
        {
            "timestamp": iso(at),
            "worker_id": worker_id,
            "error_type": signal.reported or "unknown_error",
            "error_message": signal.message,
            "status_code": signal.status_code,
        }
    )


def _move_error(details: str, by_s: float) -> str:
    error = json.loads(details)
    return json_text({**error, "timestamp": iso(parse_iso(error["timestamp"]) + by_s)})


def last_of(
    pending: deque[ResultBatch],
    epoch: int,
    at: float,
    worker_id: str,
    policy: Policy = Policy(),
    *,
    is_timed: bool = False,
) -> ResultBatch:
    """Return the batch for a result: the last of the pending ones, or a new one after it."""
    if not pending or not pending[-1].takes(epoch, at):
        pending.append(ResultBatch(epoch, worker_id, at, policy, is_timed=is_timed))
    return pending[-1]
