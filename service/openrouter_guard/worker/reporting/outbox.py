"""What has ended and waits to be reported: gathered from the desk, merged, and numbered when it goes out."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from openrouter_guard.rules import models
from openrouter_guard.rules.breaker import Policy
from openrouter_guard.rules.signals import SUCCESS, ErrorType, Signal
from openrouter_guard.store import Batch
from openrouter_guard.worker.view import Ended, Mailbox, View

from .batches import ResultBatch, last_of, result_of
from .calls_in_flight import Flight, popped

__all__ = ["Gathered", "Outbox"]

_ENDED = models.Run(ended=True)


@dataclass(slots=True)
class Gathered:
    """What was found on the desk, besides what now waits.

    Attributes:
        notes: Of single models, as known by now.
        doubts: Calls that gave reason to doubt the key or the credit, one of each kind.
        alone: The results once more, where this process decides alone.
        brings_back: Whether a model that failed works again: others wait for that.
    """

    notes: models.Notes
    doubts: dict[ErrorType | None, Signal] = field(default_factory=dict)
    alone: deque[ResultBatch] = field(default_factory=deque)
    brings_back: bool = False


class Outbox:
    """That of one reporter.

    Args:
        desk: Where calls note what they came to; it is not kept.
        flight: The calls under way.
        policy: The settings of the rules.
        worker_id: Whose errors they are.
        reporter: Under this name batches are counted once.

    Attributes:
        is_shut: Takes nothing any more from the desk, for what ends from here on is the next agent's.
        sent_s: When the last batch went out, by the monotonic clock; infinite while it is about to.
    """

    def __init__(self, mailbox: Mailbox, flight: Flight, policy: Policy, worker_id: str, reporter: str) -> None:
        self._results, self._refused = mailbox.results, mailbox.refused
        self._flight = flight
        self._policy = policy
        self._worker_id = worker_id
        self._reporter = reporter
        self._seq = 0
        self._pending: deque[ResultBatch] = deque()
        self._uncertain: ResultBatch | None = None
        self.is_shut = False
        self.sent_s = -math.inf

    def gather(self, view: View, *, is_alone: bool) -> Gathered:
        """Merge what has ended by now into the batches that wait."""
        gathered = Gathered(models.Notes(view.models, view.now_s))
        if self.is_shut:
            return gathered
        taken = _taken(self._results)
        self._flight.note(taken)
        offset_s = self._flight.offset_s(view.offset_s)
        for ended in taken:
            self._note(ended, offset_s, gathered, is_alone=is_alone)
        if self._refused.number:
            refused, self._refused.number = self._refused.number, 0
            self._last(view.record.epoch, view.now_s).counted["not_permitted_calls"] += refused
        return gathered

    def _note(self, ended: Ended, offset_s: float, gathered: Gathered, *, is_alone: bool) -> None:
        signal, (epoch, _), began_s, ended_s, named = ended
        model = models.clean(named) if named else ""
        at_s, took_s = ended_s + offset_s, ended_s - began_s if began_s else None
        pending, notes = self._last(epoch, at_s), gathered.notes
        if signal is SUCCESS and not is_alone and not (model and notes.is_news(model, _ENDED, at_s)):
            pending.succeed(at_s, took_s)
            return
        known = notes.models.get(model)
        result = result_of(signal, epoch, at_s, took_s=took_s, model=model, notes=notes)
        gathered.brings_back |= known is not None and known.failures > 0 and signal is SUCCESS
        pending.add(result)
        if is_alone:
            last_of(gathered.alone, epoch, at_s, self._worker_id, self._policy).add(result)
        if result.signal.doubts_account:
            gathered.doubts[result.signal.error_type] = result.signal

    def sign(self, view: View) -> None:
        """Report, be it nothing."""
        self._last(view.record.epoch, view.now_s)

    def cooling(self, name: str, model: models.Model, epoch: int, now_s: float) -> None:
        """Tell of a model that Redis has lost."""
        runs = self._last(epoch, now_s).models
        runs.setdefault(name, models.Run()).add(models.Run(until_s=model.until_s, reason=model.reason))

    def _last(self, epoch: int, at_s: float) -> ResultBatch:
        return last_of(self._pending, epoch, at_s, self._worker_id, self._policy)

    # -- sending --------------------------------------------------------------------------------------------------

    @property
    def has_waiting(self) -> bool:
        """Whether there are results that have yet to be sent."""
        return bool(self._pending)

    @property
    def is_empty(self) -> bool:
        """Whether everything is counted."""
        return not self._pending and self._uncertain is None

    def next_out(self) -> ResultBatch:
        """The next to send: from here on it is closed, and should its fate stay unknown, it goes again as it is."""
        if self._uncertain is None:
            self._uncertain = self._pending.popleft()
            # Until it is sent, no look shows it.
            self.sent_s = math.inf
            self._seq += 1
        return self._uncertain

    def counted(self) -> None:
        """Redis has it."""
        self._uncertain = None

    def batch(self, each: ResultBatch, now_s: float) -> Batch:
        return each.batch(self._reporter, self._seq, now_s=now_s, answers=True)

    def batches(self, waiting: Iterable[ResultBatch], now_s: float) -> Iterator[Batch]:
        return (self.batch(each, now_s) for each in waiting)

    def unseen(self, seen_s: float, now_s: float) -> Iterator[Batch]:
        """What no look at the state shows: what was sent may have been counted, then a look since has shown it.

        Args:
            seen_s: When the state was last read, by the monotonic clock.
            now_s: The time, by Redis' clock.
        """
        sent = [self._uncertain] if self._uncertain is not None and seen_s < self.sent_s else []
        return self.batches([*sent, *self._pending], now_s)


def _taken(results: deque[Ended]) -> list[Ended]:
    """Those that are there now; where a guard was closed and used again, two agents take from it for a while."""
    taken: list[Ended] = []
    with suppress(IndexError):
        taken.extend(popped(results))
    return taken
