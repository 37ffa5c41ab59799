"""The shared record as a Redis hash: all values are strings, times ISO 8601 with offset.

The first fields are those that earlier systems read and write, unchanged. An older writer leaves ``breaker`` and
``epoch`` alone and changes ``circuit_breaker_open``: the record shows if the two disagree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

from . import older_writers, question_codec
from . import window as windows
from .breaker import Breaker, BreakerState, Closed, HalfOpen, Open
from .failure_run import SHARES_KEPT
from .limits import LOOK_S
from .override import OVERRIDE_MOST_S, Override, OverrideKind
from .parsing import CLOCK_S, json_of, number, object_of, parse_moment, text_of, whole
from .question import NEVER
from .redaction import redact
from .shared_state import KEPT_TRANSITIONS, Limit, News, SharedState, Transition, Upstream
from .signals import MAX_WAIT_S, OpenRouterState
from .text import WORD_MOST, json_text, words_of
from .units import DAY_S

__all__ = ["FIELDS", "GUARDS", "encode", "iso", "parse", "parse_iso"]

FIELDS = (
    "state", "message", "balance", "usage_today", "usage_month", "last_check", "last_api_call", "last_success",
    "error_details", "consecutive_failures", "circuit_breaker_open", "rate_limit_reset", "breaker", "reason", "epoch",
    "version", "opened_at", "open_until", "closed_at", "trips", "run", "live_reporters", "permits", "tried_at",
    "probation", "good_checks", "transitions", "check_slot", "override", "fleet", "calls_per_minute",
    "credit_refusals", "check_found", "check_wanted", "timed_until", "window", "begun", "checked_at", "doubted_at",
    "failures", "limited_until", "known", "older_writer", "limit", "balance_at", "run_shares", "run_evidence",
    "run_want", "question", "answers", "acquitted", "trial_took", "ramp_from", "held_until", "good_report",
    "run_earlier", "mute_reporters",
)  # fmt: skip
"""All fields that are read.

Those that only the counting script needs are left out: ``reporters`` can be long, ``calls_counted`` and
``calls_since`` belong to the minute being measured.
"""

GUARDS = (
    "breaker", "epoch", "circuit_breaker_open", "open_until", "permits", "check_slot", "override", "limit",
    "question", "held_until",
)  # fmt: skip
"""A commit requires that these are unchanged since the read. A count in between is no conflict."""
EPOCH_AHEAD_S = DAY_S
SLOT_MOST_S = 3600.0
LEASE_MOST_S = 3600.0
OPEN_MOST_S = 27 * 3600.0
"""A day and its jitter; the breaker's own settings are stricter."""
WORKERS_MOST = 10_000
COUNT_MOST = 10**9
VERSION_MOST = 10**15
CALLS_MOST = 1e7
AMOUNT_MOST = 1e12
TOOK_MOST_S = 3600.0
WHO_MOST = 500
RUN_MOST = 500
SHARES_MOST = 4096
DETAILS_MOST = 16_384
END_OF_TIME_S = 253_402_214_400.0
"""The last day of the year 9999: later times cannot be encoded."""
_SHARE = re.compile(r"([A-Za-z0-9]+):([0-9]+)")

T = TypeVar("T")


def parse(fields: Mapping[str, str], now: float) -> SharedState:
    """Decode the record in a hash, at *now* by Redis' clock.

    An invalid field, or one out of bounds, counts as absent, so that it does not hide the others.
    """
    breaker, override = _breaker(fields, now), _override(fields.get("override"), now)
    return SharedState(
        breaker=breaker,
        epoch=_epoch(fields.get("epoch"), now),
        upstream=_upstream(fields, now),
        transitions=_transitions(fields.get("transitions"), now),
        live_reporters=whole(fields.get("live_reporters"), WORKERS_MOST),
        mute_reporters=whole(fields.get("mute_reporters"), WORKERS_MOST),
        legacy_open=_legacy_open(fields, breaker, override),
        legacy_news=News.NOTHING if isinstance(breaker, Closed) else older_writers.news_of(fields),
        older_writer_at=now if older_writers.is_here(fields) else parse_moment(fields.get("older_writer"), now),
        check_slot_at=parse_moment(fields.get("check_slot"), now, SLOT_MOST_S),
        good_checks=whole(fields.get("good_checks"), COUNT_MOST),
        good_report_at=parse_moment(fields.get("good_report"), now),
        fleet=whole(fields.get("fleet"), WORKERS_MOST),
        override=override,
        calls_per_minute=number(fields.get("calls_per_minute"), 0.0, CALLS_MOST) or 0.0,
        check_found=_state(fields["check_found"], None) if fields.get("check_found") else None,
        check_wanted_at=parse_moment(fields.get("check_wanted"), now),
        doubted_at=parse_moment(fields.get("doubted_at"), now),
        limit=_limit(fields.get("limit"), now),
        timed_until=_timed_until(fields.get("timed_until"), now),
        begun=_epoch(fields.get("begun"), now),
        version=whole(fields.get("version"), VERSION_MOST),
        acquittal=question_codec.acquittal_of(fields.get("acquitted"), now),
    )


def encode(record: SharedState) -> dict[str, str]:
    """Encode the fields of the hash; an empty string means: no such field."""
    upstream = record.upstream
    return {
        "state": upstream.state.value,
        "message": upstream.message,
        "balance": _text(upstream.balance),
        "usage_today": _text(upstream.usage_today),
        "usage_month": _text(upstream.usage_month),
        "last_check": iso(upstream.last_check_at),
        "checked_at": iso(upstream.checked_at),
        "balance_at": iso(upstream.amounts_at),
        "last_api_call": iso(upstream.last_api_call_at),
        "last_success": iso(upstream.last_success_at),
        "error_details": upstream.error_details,
        "rate_limit_reset": iso(max(upstream.rate_limit_reset_at, upstream.claimed_reset_at)),
        "limited_until": iso(upstream.rate_limit_reset_at),
        "epoch": str(record.epoch),
        "transitions": json_text([_row(t) for t in record.transitions]) if record.transitions else "",
        "check_slot": iso(record.check_slot_at),
        "good_checks": str(record.good_checks or ""),
        "good_report": iso(record.good_report_at),
        "fleet": str(record.fleet or ""),
        "check_found": record.check_found.value if record.check_found else "",
        "check_wanted": iso(record.check_wanted_at),
        "doubted_at": iso(record.doubted_at),
        "limit": "" if record.limit == Limit() else _limit_text(record.limit),
        "timed_until": iso(record.timed_until),
        "begun": str(record.begun or ""),
        "acquitted": question_codec.words(record.acquittal.at, record.acquittal.began_at)
        if record.acquittal != NEVER
        else "",
        **_breaker_fields(record.breaker),
        "circuit_breaker_open": str(_is_open(record.breaker, record.override)).lower(),
        "override": _override_text(record.override),
    }


def iso(at: float) -> str:
    """Return Unix seconds as ISO 8601 with offset; 0 means never, an empty string, and so does an invalid time."""
    try:
        return datetime.fromtimestamp(at, UTC).isoformat() if at else ""
    except (ValueError, OverflowError, OSError):
        return ""


def parse_iso(text: str | None) -> float:
    """The reverse of :func:`iso`, for times without a bound; an invalid one is 0."""
    return parse_moment(text, END_OF_TIME_S, 0.0, earliest=0.0)


def _breaker(fields: Mapping[str, str], now: float) -> Breaker:
    # Older writers overwrite the other count.
    own = fields.get("failures") if fields.get("breaker") in (BreakerState.OPEN, BreakerState.HALF_OPEN) else None
    failures = whole(own or fields.get("consecutive_failures"), COUNT_MOST)
    trips, reason = whole(fields.get("trips"), COUNT_MOST), words_of(fields.get("reason"), WORD_MOST)
    # A future one means that the clock was set back, which the breaker itself handles.
    opened_at = parse_moment(fields.get("opened_at"), END_OF_TIME_S, 0.0)
    match fields.get("breaker"):
        case BreakerState.OPEN:
            until = parse_moment(fields.get("open_until"), max(now, opened_at), OPEN_MOST_S)
            return Open(reason, opened_at, until, trips, failures)
        case BreakerState.HALF_OPEN:
            tried_at = parse_moment(fields.get("tried_at"), now)
            permits = _permits(fields.get("permits"), now)
            until = parse_moment(fields.get("open_until"), max(now, opened_at), OPEN_MOST_S)
            return HalfOpen(reason, opened_at, trips, failures, permits, tried_at, until)
        case _:
            return _closed(fields, failures, trips, now)


def _closed(fields: Mapping[str, str], failures: int, trips: int, now: float) -> Closed:
    breaker = Closed(
        trips=trips,
        since=parse_moment(fields.get("closed_at"), now),
        on_probation=fields.get("probation") == "true",
        window=windows.parse(fields.get("window")),
        failures=failures,
        run=frozenset(text_of(fields.get("run"), RUN_MOST).split()),
        # An older writer's success resets the failures and knows nothing else.
        refusals=min(whole(fields.get("credit_refusals"), COUNT_MOST), failures),
        call_s=number(fields.get("trial_took"), 0.0, TOOK_MOST_S) or 0.0,
        ramp_from=parse_moment(fields.get("ramp_from"), now),
        held_until=parse_moment(fields.get("held_until"), now, MAX_WAIT_S + CLOCK_S),
    )
    if not failures:
        return breaker
    return replace(
        breaker,
        shares=_shares(fields.get("run_shares"), failures),
        evidence=question_codec.evidence_of(fields.get("run_evidence"), now),
        want=whole(fields.get("run_want"), COUNT_MOST),
        earlier=whole(fields.get("run_earlier"), COUNT_MOST),
        question=question_codec.question_of(fields.get("question"), fields.get("answers"), now),
    )


def _shares(text: str | None, failures: int) -> dict[str, int]:
    """Return the number of failures per reporter; nothing if the sum differs: an older writer has reset the count."""
    found = {name: whole(share, COUNT_MOST) for name, share in _SHARE.findall(text_of(text, SHARES_MOST))}
    shares = dict(islice(found.items(), SHARES_KEPT))
    return shares if sum(shares.values()) <= failures else {}


def _breaker_fields(breaker: Breaker) -> dict[str, str]:
    """All breaker fields, so that those of the former state are cleared."""
    common = {
        "consecutive_failures": str(breaker.failures),
        "trips": str(breaker.trips),
        "closed_at": "", "opened_at": "", "open_until": "", "reason": "", "permits": "", "run": "",
        "tried_at": "", "probation": "", "credit_refusals": "", "window": "", "failures": "",
        "run_shares": "", "run_evidence": "", "run_want": "", "run_earlier": "", "question": "",
        "trial_took": "", "ramp_from": "", "held_until": "",
    }  # fmt: skip
    match breaker:
        case Closed():
            own = {
                **question_codec.fields_of(breaker.evidence, breaker.question, breaker.earlier),
                "run_want": str(breaker.want or ""),
                "breaker": BreakerState.CLOSED.value,
                "closed_at": iso(breaker.since),
                "run": " ".join(sorted(breaker.run)),
                "run_shares": " ".join(f"{name}:{share}" for name, share in sorted(breaker.shares.items())),
                "probation": "true" if breaker.on_probation else "",
                "credit_refusals": str(breaker.refusals or ""),
                "window": windows.text_of(breaker.window),
                "trial_took": f"{breaker.call_s:.3f}" if breaker.call_s else "",
                "ramp_from": iso(breaker.ramp_from),
                "held_until": iso(breaker.held_until),
            }
        case Open():
            own = {
                "breaker": BreakerState.OPEN.value,
                "failures": str(breaker.failures),
                "reason": breaker.reason,
                "opened_at": iso(breaker.opened_at),
                "open_until": iso(breaker.until),
            }
        case HalfOpen():
            own = {
                "breaker": BreakerState.HALF_OPEN.value,
                "failures": str(breaker.failures),
                "reason": breaker.reason,
                "opened_at": iso(breaker.opened_at),
                "permits": json_text(dict(sorted(breaker.permits.items()))),
                "tried_at": iso(breaker.tried_at),
                "open_until": iso(breaker.until),
            }
    return common | own


def _is_open(breaker: Breaker, override: Override | None) -> bool:
    """The flag for existing readers: whether to skip calls."""
    return not isinstance(breaker, Closed) if override is None else override.is_open


def _limit(text: str | None, now: float) -> Limit:
    row = object_of(text)
    return Limit(
        by=text_of(row.get("by"), WORD_MOST),
        at=parse_moment(row.get("at_s"), now),
        until=parse_moment(row.get("until_s"), now, MAX_WAIT_S + CLOCK_S),
        retest_at=parse_moment(row.get("look_s"), now, LOOK_S + CLOCK_S),
        looker=text_of(row.get("looker"), WHO_MOST),
    )


def _limit_text(limit: Limit) -> str:
    times = {"at_s": limit.at, "until_s": limit.until, "look_s": limit.retest_at}
    return json_text({"by": limit.by, **times, "looker": limit.looker})


def _override(text: str | None, now: float) -> Override | None:
    row = object_of(text)
    # An ended override is kept: the first process to see it records its end.
    until = parse_moment(row.get("until"), now, OVERRIDE_MOST_S + CLOCK_S)
    try:
        kind = OverrideKind(text_of(row.get("kind"), WORD_MOST))
    except ValueError:
        return None
    return Override(kind, words_of(row.get("who")), words_of(row.get("why")), until) if until else None


def _override_text(override: Override | None) -> str:
    if override is None:
        return ""
    row = {"kind": override.kind.value, "who": override.who, "why": override.why, "until": override.until}
    return json_text(row)


def _legacy_open(fields: Mapping[str, str], breaker: Breaker, override: Override | None) -> bool | None:
    """Return an older writer's claim that contradicts the breaker."""
    flag, is_open = fields.get("circuit_breaker_open"), _is_open(breaker, override)
    says_open = (flag or "").lower() == "true"
    if override is None and not isinstance(breaker, Closed) and fields.get("state") == OpenRouterState.ACTIVE:
        return False
    return None if flag is None or says_open == is_open else says_open


def _upstream(fields: Mapping[str, str], now: float) -> Upstream:
    def past(name: str) -> float:
        return parse_moment(fields.get(name), now)

    def reset_at(name: str) -> float:
        return parse_moment(fields.get(name), now, MAX_WAIT_S + CLOCK_S)

    def amount(name: str) -> float | None:
        return number(fields.get(name), -AMOUNT_MOST, AMOUNT_MOST)

    named, shown = reset_at("limited_until"), reset_at("rate_limit_reset")
    return Upstream(
        state=_state(fields.get("state"), OpenRouterState.ERROR),
        # Older writers repeat the upstream's message, which may be the key.
        message=redact(text_of(fields.get("message"))),
        balance=amount("balance"),
        usage_today=amount("usage_today"),
        usage_month=amount("usage_month"),
        last_check_at=past("last_check"),
        checked_at=past("checked_at"),
        amounts_at=past("balance_at"),
        last_api_call_at=past("last_api_call"),
        last_success_at=past("last_success"),
        error_details=redact(text_of(fields.get("error_details"), DETAILS_MOST)),
        rate_limit_reset_at=named,
        claimed_reset_at=0.0 if shown == named else shown,
    )


def _state(text: str | None, unknown: T) -> OpenRouterState | T:
    try:
        return OpenRouterState(text or OpenRouterState.ACTIVE)
    except ValueError:
        return unknown


def _epoch(raw: object, now: float) -> int:
    """Milliseconds of Redis' clock, incremented from there; a value far ahead is invalid."""
    return whole(raw, int((now + EPOCH_AHEAD_S) * 1000))


def _timed_until(text: str | None, now: float) -> float:
    """Nothing unreadable is recorded twice."""
    return parse_moment(text, now) or (now if text else 0.0)


def _transitions(text: str | None, now: float) -> tuple[Transition, ...]:
    rows = json_of(text)
    found = [_transition(row, now) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return tuple(change for change in found if change is not None)[-KEPT_TRANSITIONS:]


def _transition(row: Mapping[str, Any], now: float) -> Transition | None:
    epoch, at = _epoch(row.get("epoch"), now), parse_moment(row.get("at"), now)
    try:
        before, after = (
            BreakerState(text_of(row.get("from"), WORD_MOST)),
            BreakerState(text_of(row.get("to"), WORD_MOST)),
        )
    except ValueError:
        return None
    reason, by = words_of(row.get("reason"), WORD_MOST), words_of(row.get("by"))
    return Transition(epoch, before, after, reason, by, at) if epoch else None


def _row(change: Transition) -> dict[str, str | int]:
    return {
        "epoch": change.epoch,
        "from": change.before.value,
        "to": change.after.value,
        "reason": change.reason,
        "by": change.by,
        "at": iso(change.at),
    }


def _permits(text: str | None, now: float) -> dict[str, float]:
    """Return the leases by owner; older versions use the same JSON."""
    found = {
        text_of(owner, WHO_MOST): number(until, 0.0, now + LEASE_MOST_S) for owner, until in object_of(text).items()
    }
    return {owner: until for owner, until in found.items() if until is not None}


def _text(amount: float | None) -> str:
    return "" if amount is None else str(amount)
