"""Interprets the writes of the existing format, and their effects.

They know none of our fields, and overwrite the flag, the state and the count with each report. While the breaker is
not closed, only a successful call of theirs says that it may close.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from .breaker import BreakerState, Closed
from .shared_state import News, SharedState, Upstream
from .signals import OpenRouterState

__all__ = ["KNOWN", "insisted", "is_here", "news_of", "tells_of_recovery", "unwell"]

KNOWN = ("last_check", "last_success", "balance", "usage_today", "usage_month")
"""Fields whose values our scripts store together, in ``known``: if one differs, another client wrote it."""


@dataclass(frozen=True, slots=True)
class _Known:
    last_check: str = ""
    last_success: str = ""
    balance: str = ""
    usage_today: str = ""
    usage_month: str = ""


def news_of(fields: Mapping[str, str]) -> News:
    """Return the report in a hash whose breaker is not closed.

    Their reporter writes one time as the last check, the last call and the last success, and no amounts.
    """
    now = _Known(*(fields.get(name, "").replace("|", "") for name in KNOWN))
    known = _known(fields) or _before(fields, now)
    if fields.get("state") != OpenRouterState.ACTIVE:
        return News.NOTHING
    if now.last_check == known.last_check:
        return News.NOTHING
    is_success = now.last_success not in ("", known.last_success)
    is_of_a_call = now.last_success == fields.get("last_api_call", "")
    has_amounts = replace(now, last_check="", last_success="") != replace(known, last_check="", last_success="")
    return News.CALL if is_success and is_of_a_call and not has_amounts else News.CHECK


def is_here(fields: Mapping[str, str]) -> bool:
    """Return whether an older writer wrote to the hash, and no process has noticed it yet."""
    known = _known(fields)
    if known is None:
        return "epoch" not in fields and bool(fields.get("last_check"))
    return fields.get("last_check", "") != known.last_check


def tells_of_recovery(record: SharedState, now: float) -> bool:
    """Return whether a check of theirs counts as a good one: a working key says nothing about an empty account.

    Nor does their ``balance``, which is the used credit.
    """
    is_empty = record.breaker.reason == OpenRouterState.CREDITS_EXHAUSTED
    return record.legacy_news is News.CHECK and record.phase(now) is BreakerState.HALF_OPEN and not is_empty


def insisted(record: SharedState) -> SharedState:
    """Return the record with their overwrites corrected: the flag, the count, and a state that says all is well."""
    record = replace(record, legacy_open=None, legacy_news=News.NOTHING)
    reason = "" if isinstance(record.breaker, Closed) else record.breaker.reason
    return replace(record, upstream=unwell(record.upstream, reason)) if reason else record


def unwell(upstream: Upstream, reason: str) -> Upstream:
    """Return the upstream's state while the breaker is not closed because of *reason*: not "all is well"."""
    if upstream.state is not OpenRouterState.ACTIVE:
        return upstream
    state = OpenRouterState(reason) if reason in set(OpenRouterState) else OpenRouterState.ERROR
    return replace(upstream, state=state, message=f"Worker reported: {reason}")


def _before(fields: Mapping[str, str], now: _Known) -> _Known:
    """Return the state at the opening, if no script of ours has stored it."""
    is_of_before = now.last_success <= fields.get("opened_at", "")
    return replace(now, last_check="", last_success=now.last_success if is_of_before else "")


def _known(fields: Mapping[str, str]) -> _Known | None:
    parts = fields.get("known", "").split("|")
    return _Known(*parts) if len(parts) == len(KNOWN) else None
