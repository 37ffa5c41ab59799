"""What a feed says of the shared state, where no store is needed to say it."""

from __future__ import annotations

import pytest

from openrouter_guard import Settings
from openrouter_guard.rules.breaker import Closed
from openrouter_guard.rules.record import Record
from openrouter_guard.runtime import View
from openrouter_operator.feed import Feed


@pytest.fixture
def feed(monkeypatch: pytest.MonkeyPatch) -> Feed:
    return Feed(Settings("redis://127.0.0.1:1/0"), "default", "test", lambda _scope: None)


def test_a_breaker_has_been_closed_since_it_says_so(feed: Feed) -> None:
    assert feed._since_s(Record(Closed(since_s=900.0)), 1_000.0) == 900.0


def test_a_breaker_that_closed_tomorrow_has_been_closed_since_that_was_first_seen(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Record(Closed(since_s=90_000.0))
    for now_s in (80_000.0, 1_000.0, 1_010.0):  # the clock is set back
        monkeypatch.setattr(type(feed._cache), "view", View(record, now_s, None, {}))
        feed._notice()
    assert feed._since_s(record, 1_020.0) == 1_000.0
