"""``openrouter-guard probe``: whether calls may go, as an exit status."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from openrouter_guard.address import checked
from openrouter_guard.errors import OpenRouterGuardError
from openrouter_guard.probe import read
from openrouter_guard.rules.breaker import Phase
from openrouter_guard.rules.record import Record, block_s, settled
from openrouter_guard.settings import Settings
from openrouter_guard.understanding import understood

__all__ = ["run"]

GO, WAIT, UNKNOWN = 0, 1, 2


def run(environ: Mapping[str, str], *, timeout_s: float, passes_unknown: bool) -> int:
    """Print one line and return 0 (calls may go), 1 (they may not) or 2 (nobody knows)."""
    try:
        settings = Settings.from_env(environ)
        record, now_s = read(settings.redis_url, settings.scope, timeout_s)
        with understood(str(checked(settings.redis_url, settings.scope))):
            # A fleet about which nothing is known yet is not one that is down.
            current = settled(record or Record(), now_s=now_s, policy=settings.policy, by="probe")
            waiting = _waiting(current, now_s)
    except OpenRouterGuardError as error:
        print(f"unknown: {error}", file=sys.stderr)
        return GO if passes_unknown else UNKNOWN
    print(_line(waiting or "closed"))
    return WAIT if waiting else GO


def _line(text: str) -> str:
    """One line, whatever somebody stored as the reason, and on whatever terminal."""
    return "".join(each if each.isascii() and each.isprintable() else "?" for each in text)


def _waiting(record: Record, now_s: float) -> str:
    blocked = block_s(record, now_s)
    if blocked:
        return f"{record.phase(now_s)}: {blocked[1]}, {blocked[0]:.0f} s to go"
    return "" if record.phase(now_s) is Phase.CLOSED else "half_open"
