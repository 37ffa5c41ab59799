"""A feed of the shared state, tested without a store."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openrouter_guard import Settings
from openrouter_guard.replica import Snapshot
from openrouter_guard.rules.breaker import Breaker, Closed, HalfOpen, Open
from openrouter_guard.rules.override import Override, OverrideKind
from openrouter_guard.rules.shared_state import SharedState, Upstream
from openrouter_operator.decisions import status as conditions
from openrouter_operator.decisions.events import events
from openrouter_operator.decisions.goal import Goal, Step
from openrouter_operator.decisions.result import ReconcileResult
from openrouter_operator.decisions.summary import TargetSummary
from openrouter_operator.shared_state.feed import Feed
from tests.operator.samples import NOW_S, spec

HOSTILE = [
    pytest.param("two\nlines\r\nand\ttabs", "two lines and tabs", id="line ends"),
    pytest.param("\x1b[2J\x1b]0;mine\x07red", "[2J ]0;mine red", id="terminal escapes"),
    pytest.param("pay\u202egnihton\u2066 \u200bnow", "pay gnihton now", id="text that turns round"),
    pytest.param("one\u2028two\x00\x85three", "one two three", id="other line ends"),
    pytest.param("x" * 1_000_000, "x" * 399 + "\u2026", id="a megabyte"),
    pytest.param("caf\u00e9 \u4e2d\u6587", "caf\u00e9 \u4e2d\u6587", id="people's own words"),
]


@pytest.fixture
def feed(monkeypatch: pytest.MonkeyPatch) -> Feed:
    return Feed(Settings("redis://127.0.0.1:1/0"), "test", lambda _scope: None)


def test_a_breaker_has_been_closed_since_it_says_so(feed: Feed) -> None:
    assert feed._since(SharedState(Closed(since=900.0)), 1_000.0) == 900.0


def test_a_breaker_that_closed_tomorrow_has_been_closed_since_that_was_first_seen(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = SharedState(Closed(since=90_000.0))
    for now in (80_000.0, 1_000.0, 1_010.0):  # the clock is set back
        monkeypatch.setattr(type(feed._replica), "view", Snapshot(record, now, None, {}))
        feed._notice()
    assert feed._since(record, 1_020.0) == 1_000.0


def told(record: SharedState, feed: Feed, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], list[str]]:
    """The status and the events of a resource whose scope has this record, where everything is paused."""
    monkeypatch.setattr(type(feed._replica), "view", Snapshot(record, NOW_S, None, {}))
    counts = TargetSummary(matched=1, able=1, paused=1, resuming=0, failed=0)
    now = ReconcileResult(1, spec(), feed.read(), Goal(Step.PAUSE, "BreakerOpen"), counts)
    status = conditions.status({"breaker": {"state": "closed"}}, now)
    return status, [event.message for event in events({"breaker": {"state": "closed"}}, status)]


@pytest.mark.parametrize(("text", "line"), HOSTILE)
@pytest.mark.parametrize(
    "breaker",
    [lambda text: Open(text, 900.0, 1_020.0), lambda text: HalfOpen(text, 900.0)],
    ids=["open", "half-open"],
)
def test_what_redis_holds_is_one_short_line_in_the_status_and_in_events(
    feed: Feed, monkeypatch: pytest.MonkeyPatch, breaker: Any, text: str, line: str
) -> None:
    found: Breaker = breaker(text)
    status, messages = told(SharedState(found, epoch=1, upstream=Upstream(message=text)), feed, monkeypatch)
    assert status["upstream"]["message"] == status["breaker"]["reason"] == line
    assert {c["type"]: c["message"] for c in status["conditions"]}["UpstreamAvailable"] == f"{line}: {line}"
    assert messages
    assert all(message.isprintable() and len(message) < 1024 for message in messages)
    assert len(json.dumps(status)) < 10_000


@pytest.mark.parametrize(("text", "line"), HOSTILE)
def test_so_is_what_a_person_said_who_forced_it(
    feed: Feed, monkeypatch: pytest.MonkeyPatch, text: str, line: str
) -> None:
    forced = Override(OverrideKind.FORCED_OPEN, text, text, NOW_S + 60)
    status, messages = told(SharedState(Closed(), epoch=1, override=forced), feed, monkeypatch)
    assert (status["override"]["by"], status["override"]["reason"]) == (line, line)
    assert status["lastPause"]["reason"] == f"forced_open by {line} ({line})"
    assert all(message.isprintable() and len(message) < 1024 for message in messages)


def test_so_is_why_redis_cannot_be_read(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    error: Any = OSError("no\n\x1b[31m" + "x" * 1_000_000)
    monkeypatch.setattr(type(feed._replica), "view", Snapshot(None, NOW_S, error, {}))
    assert feed.read().error.startswith("no [31mxxx")
    assert len(feed.read().error) == 400
