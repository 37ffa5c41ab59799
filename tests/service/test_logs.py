"""The service's log: one line per change, and one per problem, scope and cause."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from openrouter_guard.api.scope.transition_log import TransitionLog
from openrouter_guard.background import Background
from openrouter_guard.errors import StoreRefused, StoreUnavailable
from openrouter_guard.log_once import CAUSES_MOST, LogOnce
from openrouter_guard.replica import Snapshot
from openrouter_guard.rules import transitions, trial_calls
from openrouter_guard.rules.breaker import Policy
from openrouter_guard.rules.override import Override, OverrideKind
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.settings import FurtherScope, Settings
from openrouter_guard.store import Store
from tests.cli.commands import serving
from tests.service.apps import KEY, READ_TOKEN, WRITE_TOKEN, FakeUpstream, eventually, open_breaker, running
from tests.service.leaks import Ears

NOW_S = 1_772_366_400.0
POLICY = Policy(reset_timeout_s=120, jitter=0.0)


@pytest.fixture(autouse=True)
def everything_is_heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "openrouter_guard")


def lines(caplog: pytest.LogCaptureFixture, *words: str) -> list[str]:
    said = [record.getMessage() for record in caplog.records]
    return [line for line in said if all(word in line for word in words)]


class TestChangesOfTheBreaker:
    CLOSED = SharedState(epoch=1)
    OPEN = transitions.now_open(CLOSED, "timeout", "worker-a", NOW_S, POLICY)

    def told(self, caplog: pytest.LogCaptureFixture, *views: tuple[SharedState | None, float]) -> list[str]:
        """What is told of these states; None is one that cannot be read."""
        journal = TransitionLog("team-a", Policy())
        for record, at in views:
            journal.look(Snapshot(record, NOW_S + at, error=None if record else OSError()))
        return lines(caplog, "scope team-a")

    def test_say_what_why_by_whom_and_until_when(self, caplog: pytest.LogCaptureFixture) -> None:
        assert self.told(caplog, (self.CLOSED, 0), (self.OPEN, 1), (self.OPEN, 2)) == [
            "scope team-a: the breaker is open, was closed (timeout), by worker-a, until 2026-03-01T12:00:06+00:00"
        ]
        assert [record.levelname for record in caplog.records] == ["WARNING"]

    def test_by_time_alone_are_told_once_too(self, caplog: pytest.LogCaptureFixture) -> None:
        half_open = trial_calls.with_permit(self.OPEN, "w1", now=NOW_S + 20, policy=POLICY)
        assert half_open
        closed = transitions.now_closed(half_open, "w1", NOW_S + 30)
        views = [(self.OPEN, 0.0), (self.OPEN, 12.0), (self.OPEN, 15.0), (closed, 30.0)]
        assert self.told(caplog, *views) == [
            "scope team-a: the breaker is half_open, was open (reset_timeout): trial calls may go",
            "scope team-a: the breaker is half_open, was open (reset_timeout), by w1",
            "scope team-a: the breaker is closed, was half_open (trial_succeeded), by w1",
        ]

    def test_of_before_the_start_are_no_news(self, caplog: pytest.LogCaptureFixture) -> None:
        assert self.told(caplog, (None, 0), (self.OPEN, 1), (self.OPEN, 2)) == []

    def test_by_a_person_say_who_and_why(self, caplog: pytest.LogCaptureFixture) -> None:
        decided = Override(OverrideKind.FORCED_OPEN, "ada", f"Pay {KEY}", NOW_S + 600)
        forced = transitions.overridden(self.OPEN, decided, NOW_S)
        ended = transitions.released(forced, by="ada", now=NOW_S + 5)
        decided_line, ended_line = self.told(caplog, (self.OPEN, 0), (forced, 1), (ended, 5.5))
        assert decided_line.startswith(
            "scope team-a: the breaker is overridden: open, was open (forced_open), by ada,"
        )
        assert decided_line.endswith(", until 2026-03-01T12:10:00+00:00: Pay [key]")
        assert ended_line == (
            "scope team-a: the breaker is open, was open (override_ended), by ada, until 2026-03-01T12:00:06+00:00"
        )

    async def test_are_told_by_the_running_service(
        self, settings: Settings, upstream: FakeUpstream, store: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with running(settings, upstream):
            await open_breaker(store, settings)
            await eventually(lambda: lines(caplog, "scope default: the breaker is open, was closed", ", until"))
        assert len(lines(caplog, "the breaker is open")) == 1


class TestTroubles:
    AWAY, BACK = "Redis is away", "Redis is back"

    def test_are_told_once_and_their_end_once(self, caplog: pytest.LogCaptureFixture) -> None:
        edge = LogOnce(self.AWAY, self.BACK, scope="team-a")
        for _ in range(9):
            edge.failed(StoreUnavailable("refused"))
        for _ in range(9):
            edge.worked()
        assert lines(caplog) == ["Redis is away (scope team-a): refused", "Redis is back (scope team-a)"]

    def test_are_told_again_when_their_cause_changes(self, caplog: pytest.LogCaptureFixture) -> None:
        edge = LogOnce(self.AWAY, self.BACK)
        # Away in many words is away; a refusal is another matter, and one with another number the same.
        for error in (
            StoreUnavailable("Connection refused"), StoreUnavailable("no answer within 0.3 s"),
            StoreRefused("NOPERM 17"), StoreRefused("NOPERM 18"), StoreRefused("OOM"), StoreUnavailable("refused"),
        ):  # fmt: skip
            edge.failed(error)
        assert lines(caplog) == [
            "Redis is away: Connection refused",
            "Redis is away: NOPERM 17",
            "Redis is away: OOM",
        ]
        assert str(edge.error) == "refused"
        edge.worked()
        edge.failed(StoreRefused("OOM"))
        assert len(lines(caplog, "OOM")) == 2

    def test_that_change_all_the_time_have_a_bound(self, caplog: pytest.LogCaptureFixture) -> None:
        edge = LogOnce(self.AWAY, self.BACK)
        for number in range(100):
            edge.failed(ValueError("x" * number))
        assert len(lines(caplog)) == CAUSES_MOST

    async def test_of_two_scopes_are_told_of_each(
        self, settings: Settings, upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
    ) -> None:
        away = replace(settings, redis_url="redis://127.0.0.1:1/0", further=(FurtherScope("team-a", KEY),))
        async with running(away, upstream):
            pass
        for scope in ("default", "team-a"):
            assert len(lines(caplog, "Redis is away", f"(scope {scope})")) == 1


class TestMistakes:
    @pytest.fixture
    async def background(self) -> AsyncIterator[Background]:
        background = Background()
        yield background
        await background.stop()

    async def test_are_told_once_for_each_place_with_the_traceback(
        self, background: Background, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("openrouter_guard.background._PAUSE_S", 0.001)
        rounds = 0

        async def work() -> None:
            nonlocal rounds
            rounds += 1
            if rounds % 2:
                raise KeyError(rounds)
            raise KeyError(rounds)

        background.start("looking", work)
        await eventually(lambda: rounds > 20)
        assert len(lines(caplog, "background work failed", "looking")) == 2
        assert all(record.exc_info for record in caplog.records)
        assert background.stalled() == []


@pytest.mark.slow
def test_the_first_line_says_what_it_serves_and_no_secret(
    redis_url: str, tmp_path: Path, nothing_leaks: Ears
) -> None:
    address = redis_url.replace("redis://", "redis://:hunter2@")
    environ = {
        "REDIS_URL": address,
        "OPENROUTER_API_KEY": KEY,
        "OPENROUTER_GUARD_FURTHER_SCOPES": "team-b",
        "OPENROUTER_GUARD_WRITE_TOKEN": WRITE_TOKEN,
    }
    with serving(tmp_path / "log", **environ) as service:
        log = service.log
    assert f"for scope default with an API key, scope team-b without an API key; Redis at {redis_url}; " in log, log
    assert "; reading is open to all, writing is with a token" in log
    assert not any(secret in log for secret in ("hunter2", KEY, WRITE_TOKEN, READ_TOKEN))
