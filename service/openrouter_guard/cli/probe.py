"""``openrouter-guard probe``: whether calls may go, as an exit status."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from openrouter_guard.errors import ConfigurationError, OpenRouterGuardError
from openrouter_guard.keys import DEFAULT_SCOPE
from openrouter_guard.probe import is_known, read
from openrouter_guard.rules.admission import fleet_refusal
from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.rules.evaluation import evaluate
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.settings import Settings
from openrouter_guard.unreadable import unreadable_errors

__all__ = ["run"]

GO, WAIT, UNKNOWN = 0, 1, 2


def run(environ: Mapping[str, str], *, timeout_s: float, passes_unknown: bool) -> int:
    """Print one line and return 0 (calls may go), 1 (they may not) or 2 (unknown)."""
    try:
        settings = Settings.from_env(environ)
        with unreadable_errors(str(settings.redis)):
            record, now = read(settings.redis, settings.scope, timeout_s)
            if record is None and settings.scope != DEFAULT_SCOPE:
                _require_known(settings, now, timeout_s)
            # A fleet without calls, now or so far, is not down.
            current = evaluate(record or SharedState(), now=now, policy=settings.policy, by="probe")
            waiting = _waiting(current, now)
    except OpenRouterGuardError as error:
        print(_line(f"unknown: {error}"), file=sys.stderr)
        return GO if passes_unknown else UNKNOWN
    print(_line(waiting or "closed"))
    return WAIT if waiting else GO


def _require_known(settings: Settings, now: float, timeout_s: float) -> None:
    """Distinguish a quiet fleet from one that does not exist."""
    if not is_known(settings.redis, settings.scope, now, timeout_s):
        raise ConfigurationError(
            f"the scope {settings.scope!r} was never used in Redis at {settings.redis}: "
            "check OPENROUTER_GUARD_SCOPE; a new scope is known once a worker or the health service has reported"
        )


def _line(text: str) -> str:
    """Return one line, whatever the stored reason and the terminal."""
    return "".join(each if each.isascii() and each.isprintable() else "?" for each in text)


def _waiting(record: SharedState, now: float) -> str:
    refused = fleet_refusal(record, now)
    if refused:
        return f"{record.phase(now)}: {refused.reason}, {refused.retry_after_s:.0f} s to go"
    return "" if record.phase(now) is BreakerState.CLOSED else "half_open"
