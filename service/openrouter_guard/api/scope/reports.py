"""Reports of workers in other languages over HTTP: classified and counted like guarded calls."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress

from openrouter_guard.api.schemas.reports import ReportBody, ResultBody
from openrouter_guard.errors import REFUSAL_HEADER, StoreError
from openrouter_guard.replica import Replica
from openrouter_guard.rules import health_checks, shared_state, trial_calls
from openrouter_guard.rules.breaker import Policy
from openrouter_guard.rules.codec import iso
from openrouter_guard.rules.models import Models, Notes
from openrouter_guard.rules.redaction import redact
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.rules.signals import SUCCESS, Effect, Signal, classify_error_type, classify_status
from openrouter_guard.rules.trial_reports import Told, reported
from openrouter_guard.store import Store
from openrouter_guard.worker.reporting.batches import METRICS_ONLY, ResultBatch

__all__ = ["Reports", "pending_of", "signal_of"]


class Reports:
    """Accepts reports for one scope."""

    def __init__(self, replica: Replica, store: Store) -> None:
        self._replica = replica
        self._store = store

    async def take(self, report: ReportBody) -> str:
        """Count a report; return ``counted``, ``late`` or ``repeated``.

        Raises:
            StoreError: If the outcome is uncertain; repeated with its sequence, the report counts once.
        """
        signals = self.signals_of(report)
        # First, because it may be repeated: a report that failed between the two steps comes again.
        await self.hold(report, signals)
        verdict = await self.count(report, signals)
        if verdict != "repeated":
            await self._recover(report, signals)
        return verdict

    def signals_of(self, report: ReportBody) -> list[Signal]:
        now = self._replica.now
        return [signal_of(result, now) for result in report.results]

    async def hold(self, report: ReportBody, signals: Sequence[Signal]) -> None:
        """Commit what applies at once: rate limits, and doubts about the key or the credit. It may be repeated.

        Raises:
            StoreError: If the outcome is uncertain.
        """
        by, reporter = redact(report.worker_id), _reporter("i", report.worker_id)
        decide = _Decision(signals, self._replica.policy, by, reporter)
        if decide.is_needed:
            await self._replica.change(decide)

    async def count(self, report: ReportBody, signals: Sequence[Signal], *, decides: bool = True) -> str:
        """Count the results; those that decide nothing count only in the metrics.

        Raises:
            StoreError: If the outcome is uncertain; repeated with its sequence, the report counts once.
        """
        now, view = self._replica.now, self._replica.view
        epoch = view.record.epoch if view.record else 0
        pending = pending_of(report, signals, view.models, now, self._replica.policy, epoch)
        if not decides:
            pending.epoch = METRICS_ONLY
        verdict = await self._count(pending, report)
        with suppress(StoreError):
            about = {"version": report.version, "last_seen": iso(now)}
            await self._store.heartbeat(redact(report.worker_id), about)
        return verdict

    async def _recover(self, report: ReportBody, signals: Sequence[Signal]) -> None:
        """If no worker can make a trial call, the reported results may close the breaker."""
        view, policy, by = self._replica.view, self._replica.policy, redact(report.worker_id)
        told = told_of(report, signals, view.now)

        def decide(record: SharedState | None, now: float) -> SharedState | None:
            return record and reported(record, told, now=now, policy=policy, by=by)

        if decide(view.record, view.now) is not view.record:
            with suppress(StoreError):  # the report is counted
                await self._replica.change(decide)

    async def _count(self, pending: ResultBatch, report: ReportBody) -> str:
        # Without a sequence it is counted as it comes: two replicas agree upon no numbers of their own.
        reporter = _reporter("i" if report.sequence is None else "h", report.worker_id)
        return await self._replica.count(pending.batch(reporter, report.sequence, now=self._replica.now))


def signal_of(result: ResultBody, now: float) -> Signal:
    """Return the signal of one result."""
    if result.success:
        return SUCCESS
    if result.error_type is not None and REFUSAL_HEADER not in result.headers:
        return classify_error_type(result.error_type, result.message, result.status_code)
    error = dict(result.error or {})
    error["message"] = error.get("message") or result.message
    wait_s = result.retry_after_seconds
    headers = result.headers if wait_s is None else {**result.headers, "retry-after": str(wait_s)}
    return classify_status(result.status or 503, error=error, headers=headers, now=now)


def pending_of(
    report: ReportBody,
    signals: Sequence[Signal],
    models: Models,
    now: float,
    policy: Policy = Policy(),
    epoch: int = 0,
) -> ResultBatch:
    """Return the results as a batch to be counted; those of other epochs than *epoch* count in the metrics only.

    Args:
        report: The report with the results.
        signals: Their signals.
        models: The known state of single models.
        now: End time of the calls, for lack of a better one.
        policy: The settings of the rules.
        epoch: The fleet's epoch, as last seen.
    """
    began = [report.epoch if result.epoch is None else result.epoch for result in report.results]
    deciding = epoch if epoch in began else 0 if 0 in began else max(began)
    pending, late = (ResultBatch(deciding, redact(report.worker_id), now, policy) for _ in range(2))
    notes = Notes(models, now)
    for result, signal, in_epoch in zip(report.results, signals, began, strict=True):
        into = pending if in_epoch in (0, deciding) else late
        of_fleet, news = notes.take(signal, result.model, now)
        into.add(of_fleet, now, result.took_seconds, news)
    pending.absorb(late)
    return pending


def told_of(report: ReportBody, signals: Sequence[Signal], now: float) -> list[Told]:
    """Return the results that matter to a half-open breaker; the others are left out."""
    return [
        Told(
            signal.effect is Effect.SUCCESS,
            report.epoch if result.epoch is None else result.epoch,
            now - (result.took_seconds or 0.0),
        )
        for result, signal in zip(report.results, signals, strict=True)
        if signal.effect in (Effect.SUCCESS, Effect.FAILURE)
    ]


class _Decision:
    """Return the events that apply at once: rate limits, and doubts about the key or the credit."""

    def __init__(self, signals: Sequence[Signal], policy: Policy, worker_id: str, reporter: str) -> None:
        self._limits = [signal for signal in signals if signal.effect is Effect.RATE_LIMIT]
        self._doubts = {signal.error_type: signal for signal in signals if signal.doubts_account}
        self._policy = policy
        self._by = worker_id
        self._reporter = reporter

    @property
    def is_needed(self) -> bool:
        return bool(self._limits or self._doubts)

    def __call__(self, record: SharedState | None, now: float) -> SharedState:
        after = record or shared_state.fresh(now)
        for signal in self._limits:
            after = trial_calls.limited(after, signal, now, by=self._reporter)
        for signal in self._doubts.values():
            after = health_checks.doubted(after, signal, now=now, policy=self._policy, by=self._by)
        return after


def _reporter(kind: str, worker_id: str) -> str:
    """Return the worker's name in the count: only letters and digits, and the same in every replica.

    It differs with and without sequences, so a worker that begins to number its reports starts afresh.
    """
    return f"{kind}{hashlib.blake2b(worker_id.encode(), digest_size=6).hexdigest()}"
