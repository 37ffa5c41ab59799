"""The results that wait to be reported: taken from the mailbox, merged, and numbered when sent."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from openrouter_guard import tracing
from openrouter_guard.clocks import MonotonicTime, ServerTime
from openrouter_guard.rules import models
from openrouter_guard.rules.breaker import Policy
from openrouter_guard.rules.signals import SUCCESS, ErrorType, Signal
from openrouter_guard.store import Batch
from openrouter_guard.worker.view import Ended, Mailbox, View

from .batches import ResultBatch, last_of
from .calls_in_flight import Flight, popped

__all__ = ["Gathered", "Outbox"]

_ENDED = models.Run(ended=True)


@dataclass(slots=True)
class Gathered:
    """The contents of the mailbox, besides the waiting results.

    Attributes:
        notes: The known state of single models.
        doubts: Calls that raised doubts about the key or the credit, one of each kind.
        alone: The same results, if this process decides alone.
        brings_back: Whether a failed model works again: others wait for that.
    """

    notes: models.Notes
    doubts: dict[ErrorType | None, Signal] = field(default_factory=dict)
    alone: deque[ResultBatch] = field(default_factory=deque)
    brings_back: bool = False


class Outbox:
    """The outbox of one reporter.

    Args:
        mailbox: Where calls leave their results; not kept alive.
        flight: The calls in progress.
        policy: The settings of the rules.
        worker_id: Name of the worker in the errors.
        reporter: Name under which batches are counted once.
        scope: Scope in the measurements.

    Attributes:
        is_shut: True once it takes nothing from the mailbox, because later results belong to the next agent.
        sent_at: When the last batch was sent, by the monotonic clock; infinite just before it is sent.
    """

    def __init__(
        self, mailbox: Mailbox, flight: Flight, policy: Policy, worker_id: str, reporter: str, scope: str
    ) -> None:
        self._results, self._refused = mailbox.results, mailbox.refused
        self._flight = flight
        self._policy = policy
        self._worker_id = worker_id
        self._reporter = reporter
        self._scope = scope
        self._seq = 0
        self._pending: deque[ResultBatch] = deque()
        self._uncertain: ResultBatch | None = None
        self.is_shut = False
        self.sent_at = MonotonicTime(-math.inf)

    def gather(self, view: View, *, is_alone: bool) -> Gathered:
        """Merge the new results into the waiting batches."""
        gathered = Gathered(models.Notes(view.models, view.now))
        if self.is_shut:
            return gathered
        taken = _taken(self._results)
        self._flight.note(taken)
        offset_s = self._flight.offset_s(view.offset_s)
        for ended in taken:
            self._note(ended, offset_s, gathered, is_alone=is_alone)
        if self._refused.number:
            refused, self._refused.number = self._refused.number, 0
            self._last(view.record.epoch, view.now).counted["not_permitted_calls"] += refused
            tracing.count_refused(self._scope, refused)
        return gathered

    def _note(self, ended: Ended, offset_s: float, gathered: Gathered, *, is_alone: bool) -> None:
        signal, (epoch, _), began_at, ended_at, named = ended
        model = models.clean(named) if named else ""
        at, took_s = ended_at + offset_s, ended_at - began_at if began_at else None
        pending, notes = self._last(epoch, at), gathered.notes
        if signal is SUCCESS and not is_alone and not (model and notes.is_news(model, _ENDED, at)):
            pending.succeed(at, took_s)
            return
        known = notes.models.get(model)
        gathered.brings_back |= known is not None and known.failures > 0 and signal is SUCCESS
        signal, news = notes.take(signal, model, at)
        pending.add(signal, at, took_s, news)
        if is_alone:
            alone = last_of(gathered.alone, epoch, at, self._worker_id, self._policy, is_timed=True)
            alone.add(signal, at, took_s, news)
        if signal.doubts_account:
            gathered.doubts[signal.error_type] = signal

    def move(self, by_s: float) -> None:
        """Move all moments *by_s* seconds, to another clock. A batch that was sent is still counted only once."""
        for each in (*self._pending, self._uncertain):
            if each is not None:
                each.move(by_s)

    def sign(self, view: View) -> None:
        """Make sure that a report is sent, even an empty one."""
        self._last(view.record.epoch, view.now)

    def cooling(self, name: str, model: models.Model, epoch: int, now: float) -> None:
        """Report a model that Redis has lost."""
        runs = self._last(epoch, now).models
        runs.setdefault(name, models.Run()).add(models.Run(until=model.until, reason=model.reason))

    def _last(self, epoch: int, at: float) -> ResultBatch:
        return last_of(self._pending, epoch, at, self._worker_id, self._policy, is_timed=True)

    # -- sending --------------------------------------------------------------------------------------------------

    @property
    def has_waiting(self) -> bool:
        """Return whether there are unsent results."""
        return bool(self._pending)

    @property
    def is_empty(self) -> bool:
        """Return whether all results are counted."""
        return not self._pending and self._uncertain is None

    def next_out(self) -> ResultBatch:
        """Return the next batch to send.

        It is closed from here on, and if its fate is unknown, it is sent again unchanged.
        """
        if self._uncertain is None:
            self._uncertain = self._pending.popleft()
            # No read shows it until it is sent.
            self.sent_at = MonotonicTime(math.inf)
            self._seq += 1
        return self._uncertain

    def counted(self, now: float) -> None:
        """Note that Redis has it; *now* is its time."""
        if self._uncertain is not None:
            tracing.measure_report_lag(self._scope, now - self._uncertain.since)
        self._uncertain = None

    def batch(self, each: ResultBatch, now: float) -> Batch:
        return each.batch(self._reporter, self._seq, now=now, answers=True)

    def batches(self, waiting: Iterable[ResultBatch], now: float) -> Iterator[Batch]:
        return (self.batch(each, now) for each in waiting)

    def unseen(self, seen_at: MonotonicTime, now: ServerTime) -> Iterator[Batch]:
        """Return the results that no read of the state shows yet.

        A sent batch may be counted, and a later read shows it.

        Args:
            seen_at: When the state was last read, by the monotonic clock.
            now: The time, by Redis' clock.
        """
        sent = [self._uncertain] if self._uncertain is not None and seen_at < self.sent_at else []
        return self.batches([*sent, *self._pending], now)


def _taken(results: deque[Ended]) -> list[Ended]:
    """Take the present ones. If a guard was closed and used again, two agents take from it for a while."""
    taken: list[Ended] = []
    with suppress(IndexError):
        taken.extend(popped(results))
    return taken
