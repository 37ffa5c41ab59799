"""Alerts when too many calls of the fleet fail: one entry in the history for all replicas."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from openrouter_guard.replica import Snapshot
from openrouter_guard.rules.codec import iso
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.settings import Thresholds
from openrouter_guard.store import Store

from .figures import Figures

__all__ = ["HIGH", "NORMAL", "ErrorRateAlert", "is_high"]

logger = logging.getLogger(__name__)

HIGH, NORMAL = "error_rate_high", "error_rate_normal"
_LOOKED_AT = 100
"""Number of history entries to search for the last alert."""
_SAME_S = 30.0
"""Replicas that notice the same change within this time write one entry."""


def is_high(was_high: bool, figures: Figures, thresholds: Thresholds) -> bool:
    """Return whether too many calls fail. Once they do, it stays true until half as many do."""
    if figures.error_rate is None or figures.calls < thresholds.alert_calls:
        return False
    return figures.error_rate >= thresholds.alert_error_rate * (0.5 if was_high else 1.0)


class ErrorRateAlert:
    """The alert of one scope, as this process knows it; ``on_said`` gets its entry in each process."""

    def __init__(
        self, store: Store, thresholds: Thresholds, by: str, on_said: Callable[[Mapping[str, str]], None]
    ) -> None:
        self._store = store
        self._thresholds = thresholds
        self._by = by
        self._on_said = on_said
        self._was_high: bool | None = None

    async def look(self, figures: Figures, view: Snapshot) -> None:
        """Write an entry if the alert began or ended since the last look.

        Raises:
            StoreError: If the entry cannot be written; the next look tries again.
        """
        if self._was_high is None:
            self._was_high = _is_high(await self._last())
        now_high = is_high(self._was_high, figures, self._thresholds)
        if now_high != self._was_high:
            if now_high != _is_high(await self._last()):
                await self._say(now_high, figures, view)
            last = await self._last()
            if last is not None and _is_high(last) != self._was_high:
                self._on_said(last)
            self._was_high = _is_high(last)

    async def _last(self) -> Mapping[str, str] | None:
        """Return the last alert in the history; None without one."""
        entries = await self._store.history(_LOOKED_AT)
        return next((entry for entry in entries if entry["reason"] in (HIGH, NORMAL)), None)

    async def _say(self, now_high: bool, figures: Figures, view: Snapshot) -> None:
        record = view.record or SharedState()
        phase, rate = record.phase(view.now).value, f"{figures.error_rate or 0.0:.4f}"
        reason = HIGH if now_high else NORMAL
        entry = {"from": phase, "to": phase, "reason": reason, "by": self._by, "at": iso(view.now)}
        entry["error_rate"] = rate
        if await self._store.note(entry, epoch=record.epoch, seq=int(view.now // _SAME_S)):
            fields = {"error_rate": rate, "calls": figures.calls}
            logger.warning("%s: %s of %d calls failed", reason, rate, figures.calls, extra=fields)


def _is_high(entry: Mapping[str, str] | None) -> bool:
    return entry is not None and entry["reason"] == HIGH
