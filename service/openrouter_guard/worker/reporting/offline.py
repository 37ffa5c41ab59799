"""Decides for a worker alone while Redis is away: by the fleet's rules, on the last known state of the fleet.

None of it is written to Redis: the results are reported when Redis is back, and count there.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace

from openrouter_guard.errors import StateUnreadable, StoreError, StoreUnavailable
from openrouter_guard.rules import evaluation, trial_calls
from openrouter_guard.rules.breaker import BreakerState, Policy
from openrouter_guard.rules.shared_state import SharedState, Upstream
from openrouter_guard.rules.signals import SUCCESS, Effect, ErrorType, OpenRouterState, Signal
from openrouter_guard.store import Batch, Seen
from openrouter_guard.worker.view import View

from .batches import METRICS_ONLY
from .calls_in_flight import Flight, question_in

__all__ = ["Offline"]

logger = logging.getLogger(__name__)

REFUSED_S = 5.0
"""How long after a refused change a readable Redis is not yet trusted."""
_SIGNALS = {
    "S": SUCCESS,
    "F": Signal(Effect.FAILURE),
    "C": Signal(Effect.FAILURE, ErrorType.CREDITS_EXHAUSTED),
}


class Offline:
    """Decides for a worker while it is alone.

    Args:
        view: The current view.
        show: Called with each new view.
        policy: The settings of the rules, of the fleet.
        worker_id: Name for the decisions.
        reporter: Name for the counts.
        flight: The calls in progress: if no other worker can be asked, they alone contradict the failures.

    Attributes:
        active: Whether this process decides alone.
        in_callers: Whether that is so because no background runs: callers decide, in their own threads.
    """

    def __init__(
        self,
        view: Callable[[], View],
        show: Callable[[View], None],
        policy: Policy,
        worker_id: str,
        reporter: str,
        flight: Flight | None = None,
    ) -> None:
        self.active = self.in_callers = False
        self._is_away = False
        self._view = view
        self._show = show
        # It cannot ask the others whether they see the same.
        self._policy = policy.alone
        self._worker_id = worker_id
        self._reporter = reporter
        self._flight = flight or Flight(deque())
        self._refused_until = 0.0

    # -- since when, and until when -----------------------------------------------------------------------------

    def begins(self, error: StoreError, address: str, waiting: Iterable[Batch]) -> None:
        """Note that Redis is away, perhaps for some time already.

        ``waiting`` are the results it has not accepted, in order.
        """
        if not isinstance(error, StoreUnavailable):
            self._refused_until = time.monotonic() + REFUSED_S
        if not self._is_away:
            self._is_away = True
            why = "The state cannot be read" if isinstance(error, StateUnreadable) else "Redis is away"
            with suppress(Exception):  # a handler of the application's log may raise anything
                logger.warning("%s, deciding alone: %s", why, error, extra={"redis": address})
        if not self.active:
            self.active = True
            for batch in waiting:
                self.count(batch)

    def goes_to_callers(self, known: View) -> None:
        """Note that no background runs; begin with the view that is *known*."""
        self.active = self.in_callers = True
        self._show(replace(known, is_known=True, is_alone=True))

    def comes_back(self) -> None:
        """Note that a background runs now: it decides alone until it has read the state."""
        if self.in_callers:
            self.in_callers = False
            self._show(replace(self._view(), is_alone=False))

    def ends(self, address: str) -> None:
        """Note that the view is the fleet's again."""
        self.active = False
        if self._is_away:
            self._is_away = False
            with suppress(Exception):
                logger.info("Redis is back", extra={"redis": address})

    def is_heard(self) -> None:
        """Note that Redis accepted a change."""
        self._refused_until = 0.0

    def stands(self, seen: Seen) -> bool:
        """Return whether Redis can be read but accepts no writes.

        Local counts stand, unless the fleet's state is worse.
        """
        if time.monotonic() >= self._refused_until:
            return False
        told = seen.record.phase(seen.now) if seen.record else BreakerState.CLOSED
        # The same half-open state is read for as long as Redis accepts no writes, whatever the trial calls here
        # found.
        least = self._view().phase if self.active else BreakerState.CLOSED
        return _ORDER.index(told) <= _ORDER.index(least)

    # -- deciding -----------------------------------------------------------------------------------------------

    def acquire(self, owner: str) -> bool:
        """Take the only permit for *owner*."""
        return self.decide(lambda record, now: trial_calls.with_permit(record, owner, now=now, policy=self._policy))

    def count(self, batch: Batch) -> None:
        """Count results here, as the store's script would, except those of an earlier epoch and old ones."""

        def counted(record: SharedState, _now: float) -> SharedState | None:
            is_late = batch.epoch == METRICS_ONLY or (record.epoch and batch.epoch not in (0, record.epoch))
            return None if is_late else _counted(record, batch, self._reporter)

        self.decide(counted)

    def decide(self, decide: Callable[[SharedState, float], SharedState | None]) -> bool:
        """True if there was something to decide."""
        view = self._view()
        new = decide(view.record, view.now)
        if new is None or new == view.record:
            return False
        after = evaluation.evaluate(new, now=view.now, policy=self._policy, by=self._worker_id)
        if (question := question_in(after)) is not None:
            # No other worker gets it: it is answered and decided at once.
            calls = self._flight.answer(question, view.now, self._flight.offset_s(view.offset_s))
            answered = evaluation.answered(after, calls, view.now)
            after = evaluation.evaluate(answered, now=view.now, policy=self._policy, by=self._worker_id)
        self._show(replace(view, record=after))
        return True


_ORDER = (BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN)


def _counted(record: SharedState, batch: Batch, reporter: str) -> SharedState:
    for kind, number in batch.runs:
        # The first success ends the run of failures; more successes change nothing.
        for _ in range(1 if kind == "S" else number):
            began_at, ended_at = _span_of_successes(batch) if kind == "S" else (0.0, batch.first_failure_at)
            record = evaluation.counted(record, _SIGNALS[kind], reporter, began_at=began_at, ended_at=ended_at)
    record = evaluation.knowing(record, batch.evidence, batch.earlier)
    return replace(record, upstream=_shown(record.upstream, batch))


def _span_of_successes(batch: Batch) -> tuple[float, float]:
    """Return the last start, 0 unless all are known, and the last end of a batch's successes."""
    return batch.last_begun_at if batch.are_timed else 0.0, batch.last_success_at


def _shown(upstream: Upstream, batch: Batch) -> Upstream:
    told = batch.fields
    if "state" in told:
        state, message, details = OpenRouterState(told["state"]), told["message"], told["error_details"]
        upstream = replace(upstream, state=state, message=message, error_details=details)
    return replace(upstream, last_success_at=max(upstream.last_success_at, batch.last_success_at))
