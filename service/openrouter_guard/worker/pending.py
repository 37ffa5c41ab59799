"""Results that wait to be reported, in their order and in little space however long Redis is away."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from openrouter_guard.rules import latency
from openrouter_guard.rules.models import Models, Run, is_news, name_of, noted, of_fleet, run_of
from openrouter_guard.rules.signals import Effect, ErrorType, Signal
from openrouter_guard.rules.wire import iso
from openrouter_guard.store import Batch

__all__ = ["Pending", "Result", "error_details", "gather", "result_of"]

_ERRORS_KEPT = 1000
TOO_OLD_S = 30.0
"""Results older than this say nothing about now: they are counted in the metrics and decide nothing."""
METRICS_ONLY = -1
_ACTIVE = {"state": "active", "message": "Service active", "error_details": ""}


@dataclass(frozen=True, slots=True)
class Result:
    """The end of one call.

    Attributes:
        signal: What it said, for the fleet.
        epoch: In which it began.
        at_s: When it ended, by the server's clock.
        took_s: How long it took; None if nobody knows.
        model: Whom it says something about besides, and ``run`` what; None if that is not worth telling.
    """

    signal: Signal
    epoch: int
    at_s: float
    took_s: float | None = None
    model: str = ""
    run: Run | None = None


def result_of(
    signal: Signal, epoch: int, at_s: float, *, took_s: float | None, model: str, models: Models
) -> tuple[Result, Models]:
    """The end of a call to *model* (empty: nobody knows), and what is known of single models after it."""
    name, run = name_of(signal, model), run_of(signal, at_s)
    if not name or not is_news(models, name, run, at_s):
        return Result(signal, epoch, at_s, took_s), models
    fleet = of_fleet(signal, noted(models, model, run, at_s), at_s) if model else signal
    return Result(fleet, epoch, at_s, took_s, name, run), noted(models, name, run, at_s)


@dataclass(slots=True)
class Pending:
    """Results of one epoch, merged."""

    epoch: int
    worker_id: str
    since_s: float
    runs: list[tuple[str, int]] = field(default_factory=list)
    counters: Counter[str] = field(default_factory=Counter)
    errors: deque[str] = field(default_factory=lambda: deque(maxlen=_ERRORS_KEPT))
    fields: Mapping[str, str] = field(default_factory=dict)
    models: dict[str, Run] = field(default_factory=dict)
    last_api_call_s: float = 0.0
    last_success_s: float = 0.0

    def add(self, result: Result) -> None:
        signal = result.signal
        self.counters["total_calls"] += 1
        if result.run is not None:
            self.models.setdefault(result.model, Run()).add(result.run)
        if result.took_s is not None and signal.effect is not Effect.NEUTRAL:
            self._took(result.took_s)
        if signal.effect is Effect.SUCCESS:
            self._succeeded(result)
        elif signal.effect is Effect.NEUTRAL:
            self.counters["neutral_calls"] += 1
        else:
            self._failed(result)

    def batch(self, reporter: str, seq: int, *, now_s: float) -> Batch:
        return Batch(
            epoch=METRICS_ONLY if now_s - self.since_s > TOO_OLD_S else self.epoch,
            reporter=reporter,
            seq=seq,
            runs=tuple(self.runs),
            fields={**self.fields, **self._times()},
            counters=self.counters,
            errors=tuple(self.errors),
            models=self.models,
        )

    def _took(self, took_s: float) -> None:
        self.counters[latency.field_of(took_s)] += 1
        self.counters[latency.SUM] += round(took_s * 1000)

    def _succeeded(self, result: Result) -> None:
        self._run("S")
        self.counters["successful_calls"] += 1
        self.counters["state_active"] += 1
        self.fields = _ACTIVE
        self.last_api_call_s = self.last_success_s = result.at_s

    def _failed(self, result: Result) -> None:
        signal = result.signal
        error_type = signal.error_type or "unknown_error"
        state = signal.error_type.state if signal.error_type else "error"
        self.counters["failed_calls"] += 1
        self.counters[f"state_{state}"] += 1
        details = error_details(signal, self.worker_id, result.at_s)
        self.errors.append(details)
        if signal.effect is Effect.FAILURE:
            self._run("C" if signal.error_type is ErrorType.CREDITS_EXHAUSTED else "F")
            self.fields = {
                "state": str(state),
                "message": f"Worker reported: {error_type}",
                "error_details": details,
            }
            self.last_api_call_s = result.at_s

    def _times(self) -> dict[str, str]:
        # Written out once for all results: that alone was two fifths of what a report cost.
        times = {"last_api_call": self.last_api_call_s, "last_success": self.last_success_s}
        return {name: iso(at_s) for name, at_s in times.items() if at_s}

    def _run(self, kind: str) -> None:
        # Only the failures since the last success decide, so what lies before it need not be kept apart.
        counts = dict(self.runs)
        if kind == "S" and counts.keys() != {"S"}:
            counts = {}
        counts[kind] = counts.get(kind, 0) + 1
        self.runs = list(counts.items())


def error_details(signal: Signal, worker_id: str, at_s: float) -> str:
    """One error as the log of worker errors and ``error_details`` hold it."""
    return json.dumps(
        {
            "timestamp": iso(at_s),
            "worker_id": worker_id,
            "error_type": signal.error_type or "unknown_error",
            "error_message": signal.message,
            "status_code": signal.status_code,
        }
    )


def gather(results: Iterable[Result], into: deque[Pending], worker_id: str) -> None:
    """Move *results* into the last of the pending batches, or a new one where the epoch is another."""
    for result in results:
        if not into or into[-1].epoch != result.epoch or result.at_s - into[-1].since_s > TOO_OLD_S:
            into.append(Pending(result.epoch, worker_id, result.at_s))
        into[-1].add(result)
