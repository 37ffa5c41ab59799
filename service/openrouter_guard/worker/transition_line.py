"""The worker's log line of each change of the breaker."""

from __future__ import annotations

import logging
from contextlib import suppress

from openrouter_guard.rules import log_facts
from openrouter_guard.rules.breaker import BreakerState

from .view import View

__all__ = ["log_transition"]

logger = logging.getLogger(__name__)


def log_transition(scope: str, before: BreakerState, view: View) -> None:
    """Log a change as this worker sees it; a whole fleet says the same, so none of its lines is a warning."""
    if logger.isEnabledFor(logging.INFO):
        facts = log_facts.of_phase(before, view.record, scope, view.now)
        words = "scope %s: the breaker is %s, was %s (%s)"
        with suppress(Exception):  # a handler of the application's log may raise anything
            logger.info(words, scope, facts["to"], facts["from"], facts["reason"], extra=facts)
