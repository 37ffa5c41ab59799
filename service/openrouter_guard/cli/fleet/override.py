"""``openrouter-guard override``: a person decides instead of the breaker, for a limited time."""

from __future__ import annotations

import getpass
import socket

from openrouter_guard.errors import ConfigurationError
from openrouter_guard.rules.override import OVERRIDE_MOST_S, Override, OverrideKind
from openrouter_guard.rules.shared_state import SharedState, fresh
from openrouter_guard.rules.transitions import overridden, released

from .scopes import OpenScope

__all__ = ["KINDS", "cleared", "decided", "person"]

KINDS = {
    "open": OverrideKind.FORCED_OPEN,
    "closed": OverrideKind.FORCED_CLOSED,
    "off": OverrideKind.DISABLED,
}


def person() -> str:
    """Return who is at the terminal, for the history: ``ann@laptop``."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):
        return socket.gethostname()


async def decided(scope: OpenScope, kind: str, *, who: str, why: str, for_s: float) -> None:
    """Set the override; it replaces an earlier one.

    Raises:
        ConfigurationError: If a name or a reason is empty, or it would last longer than 30 days.
        StoreError: If Redis does not accept it.
    """
    if not (who.strip() and why.strip()):
        raise ConfigurationError("an override needs a reason and a name: write --reason 'the invoice is in dispute'")
    if for_s > OVERRIDE_MOST_S:
        raise ConfigurationError("an override lasts 30 days at most: write --for 30d or less")

    def decide(record: SharedState | None, now: float) -> SharedState:
        override = Override(KINDS[kind], who.strip(), why.strip(), round(now + for_s, 6))
        return overridden(record or fresh(now), override, now)

    await scope.store.change(decide)


async def cleared(scope: OpenScope, *, who: str) -> bool:
    """End the override; return whether there was one.

    Raises:
        StoreError: If Redis does not accept it.
    """
    before = await scope.store.read()
    await scope.store.change(lambda record, now: record and released(record, by=who, now=now))
    return before.record is not None and before.record.standing(before.now) is not None
