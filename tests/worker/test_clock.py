"""A worker whose own clock is wrong: deadlines are those of Redis' clock, and pass whatever the wall clock does."""

from __future__ import annotations

import time

import pytest

from openrouter_guard import Guard
from openrouter_guard.rules.breaker import BreakerState, Open
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.store import Store
from tests.valkeys import url_of, valkey
from tests.waiting import until
from tests.worker.guards import fail, settings

HOUR_S = 3600.0
_true_time = time.time


@pytest.fixture(params=[-HOUR_S, HOUR_S], ids=["an hour slow", "an hour fast"])
def off_s(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    off_s: float = request.param
    monkeypatch.setattr(time, "time", lambda: _true_time() + off_s)
    return off_s


@pytest.mark.usefixtures("off_s")
def test_it_half_opens_when_the_others_do(redis_url: str) -> None:
    with Guard(settings(redis_url, reset_timeout_s=0.5)) as guard:
        fail(guard, 5)
        assert 0 < guard.state.retry_after_s <= 0.55
        until(lambda: guard.state.phase is BreakerState.HALF_OPEN)


@pytest.mark.usefixtures("off_s")
def test_without_redis_the_fleets_deadline_stands_and_passes() -> None:
    with valkey() as server, Guard(settings(url_of(server), reset_timeout_s=0.5)) as guard:
        fail(guard, 5)
        server.terminate()
        assert guard.state.retry_after_s > 0
        assert guard.wait(timeout_s=1.5)
        assert guard.state.phase is BreakerState.HALF_OPEN


def test_a_jump_of_it_moves_no_deadline(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Guard(settings(redis_url)) as guard:
        fail(guard, 5)
        before_s = guard.state.retry_after_s
        monkeypatch.setattr(time, "time", lambda: _true_time() + HOUR_S)
        assert before_s - 5 < guard.state.retry_after_s <= before_s


def test_what_it_reports_bears_the_time_of_redis(redis_url: str, off_s: float) -> None:
    with Guard(settings(redis_url)) as guard:
        with guard.call():
            pass
        guard.flush()
        last_success_s = guard._core.view.record.upstream.last_success_s
    assert abs(last_success_s - _true_time()) < 5 < abs(off_s)


async def test_a_clock_of_redis_that_was_set_back_makes_nobody_wait_for_it(redis_url: str, store: Store) -> None:
    tomorrow_s = time.time() + 24 * HOUR_S
    ahead = SharedState(breaker=Open("timeout", tomorrow_s, tomorrow_s + 60.0), epoch=7)
    await store.change(lambda _record, _now_s: ahead)
    await store.change(lambda _record, _now_s: ahead)  # the first time it was not there to compare with
    with Guard(settings(redis_url, reset_timeout_s=0.5)) as guard:
        until(lambda: guard.state.phase is not BreakerState.CLOSED)
        until(lambda: guard.state.phase is BreakerState.HALF_OPEN)
        with guard.call():
            pass
        until(lambda: guard.state.phase is BreakerState.CLOSED)
