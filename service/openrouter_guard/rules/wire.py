"""The shared record as a Redis hash: all values are strings, times ISO 8601 with offset.

The first fields are the ones that earlier systems read and write; they stay what they were. An older writer leaves
``breaker`` and ``epoch`` alone and changes ``circuit_breaker_open``: where the two disagree, the record says so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from . import window as windows
from .breaker import Breaker, Closed, HalfOpen, Open, Phase
from .hiding import without_keys
from .override import Override, OverrideKind
from .record import Record, Transition, Upstream
from .signals import OpenRouterState

__all__ = ["FIELDS", "GUARDS", "encode", "iso", "parse", "unix_s"]

FIELDS = (
    "state", "message", "balance", "usage_today", "usage_month", "last_check", "last_api_call", "last_success",
    "error_details", "consecutive_failures", "circuit_breaker_open", "rate_limit_reset",
    "breaker", "reason", "epoch", "version", "opened_at", "open_until", "closed_at", "trips", "run",
    "live_reporters", "permits", "tried_at", "probation", "good_checks", "transitions", "check_slot",
    "override", "fleet", "calls_per_minute", "credit_refusals", "check_found", "check_wanted",
    "timed_until", "window", "checked_at", "doubted_at",
)  # fmt: skip
"""All that is read. What only the counting script needs is left out: ``reporters`` can be long, ``calls_counted``
and ``calls_since`` are the minute that is being measured."""

GUARDS = ("breaker", "epoch", "circuit_breaker_open", "open_until", "permits", "check_slot", "override")
"""A commit is made only if these are as they were read. A count that happens meanwhile is no conflict."""


def parse(fields: Mapping[str, str]) -> Record:
    """The record in a hash.

    A field that cannot be read is taken as absent: an older writer's mistake in one field must not hide the others.
    """
    breaker, override = _breaker(fields), _override(fields.get("override"))
    return Record(
        breaker=breaker,
        epoch=_int(fields.get("epoch")),
        upstream=_upstream(fields),
        transitions=_transitions(fields.get("transitions")),
        live_reporters=_int(fields.get("live_reporters")),
        legacy_open=_contradiction(fields.get("circuit_breaker_open"), _is_open(breaker, override)),
        check_slot_s=unix_s(fields.get("check_slot")),
        good_checks=_int(fields.get("good_checks")),
        fleet=_int(fields.get("fleet")),
        override=override,
        calls_per_minute=_number(fields.get("calls_per_minute")) or 0.0,
        check_found=_state(fields["check_found"]) if fields.get("check_found") else None,
        check_wanted_s=unix_s(fields.get("check_wanted")),
        doubted_s=unix_s(fields.get("doubted_at")),
        timed_until_s=unix_s(fields.get("timed_until")),
    )


def encode(record: Record) -> dict[str, str]:
    """All fields of the hash that the record decides; an empty string means: no such field."""
    upstream = record.upstream
    return {
        "state": upstream.state.value,
        "message": upstream.message,
        "balance": _text(upstream.balance),
        "usage_today": _text(upstream.usage_today),
        "usage_month": _text(upstream.usage_month),
        "last_check": iso(upstream.last_check_s),
        "checked_at": iso(upstream.checked_s),
        "last_api_call": iso(upstream.last_api_call_s),
        "last_success": iso(upstream.last_success_s),
        "error_details": upstream.error_details,
        "rate_limit_reset": iso(upstream.rate_limit_reset_s),
        "epoch": str(record.epoch),
        "transitions": json.dumps([_row(t) for t in record.transitions]) if record.transitions else "",
        "check_slot": iso(record.check_slot_s),
        "good_checks": str(record.good_checks or ""),
        "fleet": str(record.fleet or ""),
        "check_found": record.check_found.value if record.check_found else "",
        "check_wanted": iso(record.check_wanted_s),
        "doubted_at": iso(record.doubted_s),
        "timed_until": iso(record.timed_until_s),
        **_breaker_fields(record.breaker),
        "circuit_breaker_open": str(_is_open(record.breaker, record.override)).lower(),
        "override": _override_text(record.override),
    }


def iso(at_s: float) -> str:
    """Unix seconds as ISO 8601 with offset; 0 means never, written as an empty string."""
    return datetime.fromtimestamp(at_s, UTC).isoformat() if at_s else ""


def unix_s(text: str | None) -> float:
    """The reverse of :func:`iso`; what cannot be read is 0. A time without offset is taken as UTC."""
    try:
        at = datetime.fromisoformat(text or "")
    except ValueError:
        return 0.0
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _breaker(fields: Mapping[str, str]) -> Breaker:
    failures = _int(fields.get("consecutive_failures"))
    trips, reason = _int(fields.get("trips")), fields.get("reason", "")
    opened_at_s = unix_s(fields.get("opened_at"))
    match fields.get("breaker"):
        case Phase.OPEN:
            return Open(reason, opened_at_s, unix_s(fields.get("open_until")), trips, failures)
        case Phase.HALF_OPEN:
            tried_at_s = unix_s(fields.get("tried_at"))
            return HalfOpen(reason, opened_at_s, trips, failures, _permits(fields.get("permits")), tried_at_s)
        case _:
            run = frozenset(fields.get("run", "").split())
            on_probation = fields.get("probation") == "true"
            # An older writer's success resets the failures and knows of nothing else.
            refusals = min(_int(fields.get("credit_refusals")), failures)
            closed_at_s, window = unix_s(fields.get("closed_at")), windows.parse(fields.get("window"))
            return Closed(failures, run, trips, closed_at_s, on_probation, refusals, window)


def _breaker_fields(breaker: Breaker) -> dict[str, str]:
    """All breaker fields, so that those of the state before are emptied."""
    common = {
        "consecutive_failures": str(breaker.failures),
        "trips": str(breaker.trips),
        "closed_at": "", "opened_at": "", "open_until": "", "reason": "", "permits": "", "run": "",
        "tried_at": "", "probation": "", "credit_refusals": "", "window": "",
    }  # fmt: skip
    match breaker:
        case Closed():
            own = {
                "breaker": Phase.CLOSED.value,
                "closed_at": iso(breaker.since_s),
                "run": " ".join(sorted(breaker.run)),
                "probation": "true" if breaker.on_probation else "",
                "credit_refusals": str(breaker.refusals or ""),
                "window": windows.text_of(breaker.window),
            }
        case Open():
            own = {
                "breaker": Phase.OPEN.value,
                "reason": breaker.reason,
                "opened_at": iso(breaker.opened_at_s),
                "open_until": iso(breaker.until_s),
            }
        case HalfOpen():
            own = {
                "breaker": Phase.HALF_OPEN.value,
                "reason": breaker.reason,
                "opened_at": iso(breaker.opened_at_s),
                "permits": json.dumps(dict(breaker.permits), sort_keys=True),
                "tried_at": iso(breaker.tried_at_s),
            }
    return common | own


def _is_open(breaker: Breaker, override: Override | None) -> bool:
    """What existing readers are told: whether calls are to be skipped."""
    return not isinstance(breaker, Closed) if override is None else override.is_open


def _override(text: str | None) -> Override | None:
    row = _json(text, None)
    try:
        until_s = float(row["until"])
        found = Override(OverrideKind(row["kind"]), str(row["who"]), str(row["why"]), until_s)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(until_s) else None


def _override_text(override: Override | None) -> str:
    if override is None:
        return ""
    row = {"kind": override.kind.value, "who": override.who, "why": override.why, "until": override.until_s}
    return json.dumps(row)


def _contradiction(flag: str | None, is_open: bool) -> bool | None:
    says_open = (flag or "").lower() == "true"
    return None if flag is None or says_open == is_open else says_open


def _upstream(fields: Mapping[str, str]) -> Upstream:
    return Upstream(
        state=_state(fields.get("state")),
        # Older writers repeat what the upstream said, and that may be the key.
        message=without_keys(fields.get("message", "")),
        balance=_number(fields.get("balance")),
        usage_today=_number(fields.get("usage_today")),
        usage_month=_number(fields.get("usage_month")),
        last_check_s=unix_s(fields.get("last_check")),
        checked_s=unix_s(fields.get("checked_at")),
        last_api_call_s=unix_s(fields.get("last_api_call")),
        last_success_s=unix_s(fields.get("last_success")),
        error_details=without_keys(fields.get("error_details", "")),
        rate_limit_reset_s=unix_s(fields.get("rate_limit_reset")),
    )


def _state(text: str | None) -> OpenRouterState:
    try:
        return OpenRouterState(text or OpenRouterState.ACTIVE)
    except ValueError:
        return OpenRouterState.ERROR


def _transitions(text: str | None) -> tuple[Transition, ...]:
    try:
        return tuple(_transition(row) for row in _json(text, []))
    except (KeyError, TypeError, ValueError):
        return ()


def _transition(row: Mapping[str, Any]) -> Transition:
    before, after = Phase(row["from"]), Phase(row["to"])
    return Transition(int(row["epoch"]), before, after, row["reason"], row["by"], unix_s(row["at"]))


def _row(change: Transition) -> dict[str, str | int]:
    return {
        "epoch": change.epoch,
        "from": change.before.value,
        "to": change.after.value,
        "reason": change.reason,
        "by": change.by,
        "at": iso(change.at_s),
    }


def _permits(text: str | None) -> dict[str, float]:
    found = _json(text, {})
    if not isinstance(found, dict):
        return {}
    return {str(owner): float(at) for owner, at in found.items() if isinstance(at, int | float)}


def _json(text: str | None, default: Any) -> Any:
    try:
        return json.loads(text) if text else default
    except ValueError:
        return default


def _text(number: float | None) -> str:
    return "" if number is None else str(number)


def _int(text: str | None) -> int:
    try:
        return int(text or 0)
    except ValueError:
        return 0


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text else None
    except ValueError:
        return None
    return number if number is not None and math.isfinite(number) else None
