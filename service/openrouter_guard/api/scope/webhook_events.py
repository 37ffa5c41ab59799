"""The events of the webhook, and the bodies that say them: as JSON, or as a message of Slack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from openrouter_guard.rules.breaker import BreakerState, Open
from openrouter_guard.rules.codec import iso, parse_iso
from openrouter_guard.rules.parsing import number
from openrouter_guard.rules.redaction import redact
from openrouter_guard.rules.shared_state import SharedState, Transition
from openrouter_guard.webhook_settings import WebhookFormat

__all__ = ["Event", "alarm_event", "half_open_event", "payload", "transition_event"]

Event: TypeAlias = Mapping[str, Any]
WHY_MOST = 300
"""Characters of the reason in somebody else's words."""
NAMED_MOST = 5
"""Paused workloads that a message names."""
_WORDS = {
    "open": "calls to OpenRouter are paused",
    "half_open": "trial calls may go to OpenRouter",
    "closed": "calls to OpenRouter may go again",
}


def transition_event(change: Transition, record: SharedState, scope: str, now: float) -> Event:
    """Create the event of a change of *record*; its end and its reason are known of the latest change only."""
    is_latest = bool(record.transitions) and change is record.transitions[-1]
    until, why = _end(change, record, now) if is_latest else (0.0, "")
    return _event(change, scope, until, why)


def half_open_event(record: SharedState, opened: Open, scope: str) -> Event:
    """Create the event of a wait that ended by time: no process writes that change."""
    before, after = BreakerState.OPEN, BreakerState.HALF_OPEN
    return _event(Transition(record.epoch, before, after, "reset_timeout", "", opened.until), scope, 0.0, "")


def alarm_event(entry: Mapping[str, str], scope: str) -> Event:
    """Create the event from an alert's entry in the history."""
    rate = entry.get("error_rate", "")
    percent = 100 * (number(rate, 0.0, 1.0) or 0.0)
    return {
        "event": "alarm",
        "scope": scope,
        **{name: entry[name] for name in ("from", "to", "reason", "by", "at")},
        "error_rate": rate,
        "text": f"OpenRouter Guard ({scope}): {entry['reason']}, {percent:.1f} % of the calls of five minutes failed",
    }


def _end(change: Transition, record: SharedState, now: float) -> tuple[float, str]:
    """Return the end of the state, 0 without one, and the words of the upstream or of a person."""
    override = record.standing(now)
    if override is not None and change.reason == override.kind:
        return override.until, override.why
    if change.after is not BreakerState.OPEN:
        return 0.0, ""
    return record.breaker.until if isinstance(record.breaker, Open) else 0.0, record.upstream.message


def _event(change: Transition, scope: str, until: float, why: str) -> Event:
    before, after = change.before.value, change.after.value
    return {
        "event": "transition",
        "scope": scope,
        "from": before,
        "to": after,
        "reason": change.reason,
        "by": change.by,
        "at": iso(change.at),
        "epoch": change.epoch,
        "until": iso(until) or None,
        "why": redact(why)[:WHY_MOST] or None,
        "text": f"OpenRouter Guard ({scope}): {_WORDS[after]} (breaker {before} → {after}: {change.reason})",
    }


def payload(
    event: Event, form: WebhookFormat, paused: Sequence[Event] | None = None, public_url: str = ""
) -> dict[str, Any]:
    """Return the body to send.

    Args:
        event: The event.
        form: The format of the body.
        paused: The paused workloads of each cluster; None if unknown.
        public_url: Address of the status page; empty if unknown.
    """
    link = f"{public_url}/?scope={event['scope']}" if public_url else None
    facts = _facts(event, paused)
    text = ". ".join([event["text"], *(f"{name}: {fact}" for name, fact in facts.items()), *([link] if link else [])])
    if form == "json":
        return {**event, "paused": paused, "link": link, "text": text}
    return {"text": _escaped(text), "blocks": _blocks(event, facts, link)}


def _facts(event: Event, paused: Sequence[Event] | None) -> dict[str, str]:
    """Return the rest of the message by its names in it."""
    named = [f"{each['cluster']}: {name}" for each in paused or () for name in each["workloads"]]
    more = sum(each["paused"] for each in paused or ()) - len(named[:NAMED_MOST])
    said = {
        "Since": event["at"],
        "Until": event.get("until"),
        "Why": event.get("why"),
        "By": event["by"],
        "Paused": ", ".join(named[:NAMED_MOST]) + (f" and {more} more" if more > 0 else ""),
    }
    return {name: fact for name, fact in said.items() if fact}


def _blocks(event: Event, facts: Mapping[str, str], link: str | None) -> list[dict[str, Any]]:
    # A section has at most ten fields, of 2,000 characters each.
    title, _, _ = event["text"].partition(": ")[2].partition(" (")
    fields = {"Scope": event["scope"], "Reason": event["reason"], **facts}
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": title[:1].upper() + title[1:150]}},
        {"type": "section", "fields": [_mrkdwn(f"*{name}*\n{_fact(name, fields[name])}") for name in fields]},
    ]
    return [*blocks, {"type": "section", "text": _mrkdwn(f"<{_escaped(link)}|Status page>")}] if link else blocks


def _fact(name: str, fact: str) -> str:
    """Return the fact as Slack shows it: a time in the time zone of the reader, and no mention of anybody."""
    shown = _escaped(fact)[:1500]
    at = parse_iso(fact) if name in ("Since", "Until") else 0.0
    return f"<!date^{int(at)}^{{date_short_pretty}} {{time_secs}}|{shown}>" if at else shown


def _mrkdwn(text: str) -> dict[str, str]:
    return {"type": "mrkdwn", "text": text}


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
