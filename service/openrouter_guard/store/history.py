"""Transitions, other entries of the history, and the errors of workers: read in limited amounts, the newest first."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from openrouter_guard.errors import StoreError
from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.rules.codec import parse_iso
from openrouter_guard.rules.parsing import row_of, text_of
from openrouter_guard.rules.redaction import redact
from openrouter_guard.rules.text import json_text
from openrouter_guard.unreadable import reads_state

from .counters import kept_midnights
from .scope_store import ScopeStore
from .scripts import LEASE, MEND, NOTE

__all__ = ["History"]

ERROR_DAYS = 7
ENTRY_MOST = 1000
_LOST = -2
ENTRY = ("from", "to", "reason", "by", "at")
HISTORY_READS = 10
"""How often to read on past foreign entries, before the result must do."""


class History(ScopeStore):
    """The history of one scope."""

    @reads_state
    async def history(self, limit: int = 100, *, before: str = "") -> list[dict[str, str]]:
        """Return the newest entries, newest first: ``epoch``, ``from``, ``to``, ``reason``, ``by``, ``at``, ``seq``.

        Transitions have a ``seq`` of 0; other entries within their epoch have a larger one.

        Args:
            limit: Maximum number.
            before: Only entries before ``<epoch>-<seq>``, to continue after the last answer; empty: all.
        """
        found: list[dict[str, str]] = []
        is_newest = not before
        for _ in range(HISTORY_READS):
            newest = f"({before}" if before else "+"
            (entries,) = await self._connection.execute(("XREVRANGE", self.keys.history, newest, "-", "COUNT", limit))
            found += [entry for name, fields in entries if (entry := _entry(name, fields))]
            if is_newest and entries and not _entry(*entries[0]):
                await self._mend_history()
            is_newest = False
            if len(found) >= limit or len(entries) < limit:
                break
            before = entries[-1][0]
        return found[:limit]

    @reads_state
    async def note(self, entry: Mapping[str, str], *, epoch: int, seq: int) -> bool:
        """Add an entry to the history that is not a transition.

        Args:
            entry: As returned by :meth:`history`; ``from`` and ``to`` are the same.
            epoch: Epoch in which it happened.
            seq: Above 0, and the same in all processes that may notice the same event: only the first one is
                recorded.

        Returns:
            Whether it was put there: not where somebody has said so already, or the epoch is over.
        """
        fields = [text for pair in entry.items() for text in pair]
        return bool(await self._connection.run(NOTE, [self.keys.history], [f"{epoch}-{seq}", json_text(fields)]))

    async def _mend_history(self) -> None:
        """A foreign entry is the newest one, and may block later entries."""
        with suppress(StoreError):
            await self._connection.run(MEND, [self.keys.history], [])

    @reads_state
    async def lease(self, name: str, number: int, caller: str, life_s: float, *, is_new: bool = True) -> float | None:
        """Lease *number* under *name*, or renew the lease: one process at a time has it, until it is done.

        Args:
            name: Numbers of one name grow; a number below the highest one leased is never new.
            number: The number.
            caller: The process, in hexadecimal digits.
            life_s: Seconds of the lease; 0 ends it, so that another process may have it at once.
            is_new: Whether the number may be new; False only takes it over.

        Returns:
            0 if the caller has it; the seconds left to its holder; None if nobody needs to act on it any more.

        Raises:
            StoreError: Also if Redis has lost the state. The process that restores it has not acted on the number.
        """
        argv: list[str | int | float] = [name, number, caller, int(1000 * life_s), int(is_new)]
        left_ms = int(await self._connection.run(LEASE, [self.keys.state], argv))
        if left_ms == _LOST:
            raise StoreError(f"Redis has lost the state of scope {self.keys.scope!r}")
        return None if left_ms < 0 else left_ms / 1000

    @reads_state
    async def lease_done(self, name: str, number: int, caller: str) -> None:
        """Nobody needs to act on *number* any more, if the caller has its lease."""
        await self._connection.run(LEASE, [self.keys.state], [name, number, caller, -1, 0])

    @reads_state
    async def worker_errors(self, limit: int = 100, *, now: float) -> list[dict[str, Any]]:
        """Return the newest errors that workers reported in the last seven days, newest first.

        Each has ``timestamp``, ``worker_id``, ``error_type``, ``error_message`` and ``status_code``.
        """
        found: list[dict[str, Any]] = []
        for midnight in kept_midnights(ERROR_DAYS, now):
            if len(found) >= limit:
                break
            key = self.keys.worker_errors(midnight)
            (entries,) = await self._connection.execute(("LRANGE", key, 0, limit - len(found) - 1))
            found += [row for row in map(row_of, map(redact, entries)) if row]
        return found


def _entry(name: str, fields: Mapping[str, str]) -> dict[str, str] | None:
    """Return an entry of the history; None for a foreign one."""
    entry = dict.fromkeys(ENTRY, "") | {each: text_of(value, ENTRY_MOST) for each, value in fields.items()}
    epoch, _, seq = name.partition("-")
    is_ours = {entry["from"], entry["to"]} <= set(BreakerState) and parse_iso(entry["at"])
    return {**entry, "epoch": epoch, "seq": seq} if is_ours else None
