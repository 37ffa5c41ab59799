"""Logs each change of the breaker once per process: the change, its reason, its author, and its end."""

from __future__ import annotations

import logging
from collections.abc import Callable

from openrouter_guard.replica import Snapshot
from openrouter_guard.rules import log_facts
from openrouter_guard.rules.breaker import BreakerState, Open, Policy
from openrouter_guard.rules.codec import iso
from openrouter_guard.rules.log_facts import Facts
from openrouter_guard.rules.override import OverrideKind
from openrouter_guard.rules.redaction import redact
from openrouter_guard.rules.shared_state import SharedState, Transition
from openrouter_guard.rules.trial_reports import nobody_tries
from openrouter_guard.tracing import span

__all__ = ["TransitionLog"]

logger = logging.getLogger(__name__)

_OVERRIDES = frozenset(OverrideKind)


class TransitionLog:
    """The last logged state of one scope; ``count`` gets each change: before, after, and the reason."""

    def __init__(
        self,
        scope: str,
        policy: Policy,
        count: Callable[[BreakerState, BreakerState, str], None] = lambda _before, _after, _reason: None,
    ) -> None:
        self._scope = scope
        self._policy = policy
        self._count = count
        self._is_stuck = False
        self._epoch: int | None = None
        self._phase: BreakerState | None = None

    def look(self, view: Snapshot) -> None:
        """Log the changes since the last look; other processes have logged earlier ones."""
        record = view.record
        if record is None:
            # A missing state is a state too; an unreadable one is not.
            self._epoch = self._epoch if view.is_degraded else self._epoch or 0
            return
        if self._epoch is not None:
            for change in record.transitions:
                if change.epoch > self._epoch:
                    self._tell(change, record, view.now)
            self._tell_of_time(record, view.now)
        self._tell_of_nobody(record, view)
        newest = max((change.epoch for change in record.transitions), default=0)
        self._epoch = max(newest, self._epoch or 0)
        self._phase = record.phase(view.now)

    def _tell(self, change: Transition, record: SharedState, now: float) -> None:
        self._phase = change.after
        self._count(change.before, change.after, change.reason)
        level = logging.WARNING if change.after is BreakerState.OPEN else logging.INFO
        why = redact(_why(change, record, now))
        by = redact(change.by)
        what = "overridden: " if change.reason in _OVERRIDES else ""
        words = f"scope %s: the breaker is {what}%s, was %s (%s), by %s%s"
        facts = log_facts.of_change(change, record, self._scope, now)
        logger.log(level, words, self._scope, change.after, change.before, change.reason, by, why, extra=facts)
        _trace(facts)

    def _tell_of_time(self, record: SharedState, now: float) -> None:
        """An open breaker becomes half-open by time alone, with no process to record it."""
        phase = record.phase(now)
        if phase is not self._phase and phase is BreakerState.HALF_OPEN:
            words = "scope %s: the breaker is %s, was %s (%s): trial calls may go"
            facts = log_facts.of_phase(BreakerState.OPEN, record, self._scope, now)
            logger.info(words, self._scope, phase, self._phase, "reset_timeout", extra=facts)
            _trace(facts)
            self._count(BreakerState.OPEN, phase, "reset_timeout")

    def _tell_of_nobody(self, record: SharedState, view: Snapshot) -> None:
        """Log it once for each half-open period without trial calls."""
        was_stuck, self._is_stuck = self._is_stuck, nobody_tries(record, view.now, self._policy)
        if self._is_stuck and not was_stuck:
            words = (
                "scope %s: no worker makes a trial call, and no service has an API key to check with: the breaker "
                "closes once a worker asks for a permit, or two successes without one are reported"
            )
            logger.warning(words, self._scope)


def _trace(facts: Facts) -> None:
    # Without the words of a person.
    with span("transition", **{name: fact for name, fact in facts.items() if name != "why"}):
        pass


def _why(change: Transition, record: SharedState, now: float) -> str:
    """Return the end of the state, and the given reason of an override; both are known of the latest change only."""
    if change is not record.transitions[-1]:
        return ""
    override = record.standing(now)
    if override is not None and change.reason == override.kind:
        return f", until {iso(override.until)}: {override.why}"
    breaker = record.breaker
    return f", until {iso(breaker.until)}" if change.after is BreakerState.OPEN and isinstance(breaker, Open) else ""
