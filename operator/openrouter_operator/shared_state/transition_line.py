"""The operator's log line of each change of the breaker."""

from __future__ import annotations

import logging

from openrouter_guard.replica import Snapshot
from openrouter_guard.rules import log_facts
from openrouter_guard.rules.breaker import BreakerState

__all__ = ["TransitionLine"]

logger = logging.getLogger(__name__)


class TransitionLine:
    """The last logged state of one scope; that of the start is no change."""

    def __init__(self, scope: str) -> None:
        self._scope = scope
        self._phase: BreakerState | None = None

    def look(self, view: Snapshot) -> None:
        if view.record is None:
            return
        before, self._phase = self._phase, view.record.phase(view.now)
        if before is None or before is self._phase:
            return
        facts = log_facts.of_phase(before, view.record, self._scope, view.now)
        words = "scope %s: the breaker is %s, was %s (%s)"
        logger.info(words, self._scope, facts["to"], facts["from"], facts["reason"], extra=facts)
