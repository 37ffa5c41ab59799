"""Twenty workers of an existing fleet and twenty of ours, on one Redis, through an outage and its end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
import redis

from openrouter_guard import CallNotPermitted, Guard, Settings
from openrouter_guard.rules.breaker import BreakerState, Policy
from tests.existing import STATE, Checked, ExistingApi, ExistingWorker
from tests.recipes.code import end
from tests.waiting import until

EACH = 20


class Fleets:
    """Both, and what happened to them."""

    def __init__(self, ours: list[Guard], theirs: list[ExistingWorker], client: Any) -> None:
        self.ours, self.theirs, self.client = ours, theirs, client
        self.calls = 0

    def succeed(self) -> None:
        """A call of each that may make one, which succeeds."""
        for guard in self.ours:
            with suppress(CallNotPermitted), guard.call():
                self.calls += 1
            guard.flush()
        for worker in self.theirs:
            if not worker.should_skip_api_call():
                assert worker.report_api_success()
                self.calls += 1

    def fail(self) -> None:
        """A call of each that may make one, which fails."""
        for guard, worker in zip(self.ours, self.theirs, strict=True):
            with suppress(CallNotPermitted, TimeoutError), guard.call():
                self.calls += 1
                raise TimeoutError
            guard.flush()
            if not worker.should_skip_api_call():
                assert worker.report_api_error()
                self.calls += 1

    def report_late(self) -> None:
        """Jobs of theirs that looked before the outage go on, and tell what their retries came to."""
        for number, worker in enumerate(self.theirs):
            kind = ("service_unavailable", "timeout", "unknown_error", "rate_limited")[number % 4]
            assert worker.report_api_error(kind)
            self.calls += 1

    @property
    def phases(self) -> set[BreakerState]:
        return {guard.state.phase for guard in self.ours}

    @property
    def skipped(self) -> set[bool]:
        """Whether theirs skip their calls."""
        return {worker.should_skip_api_call() for worker in self.theirs}

    @property
    def history(self) -> list[tuple[str, str]]:
        return [(entry["from"], entry["to"]) for _, entry in self.client.xrange("openrouter:history")]


@pytest.fixture
def fleets(redis_url: str) -> Iterator[Fleets]:
    policy = Policy(reset_timeout_s=300, ramp_s=0.01, jitter=0)
    with ExitStack() as stack:
        ours = [stack.enter_context(Guard(Settings(redis_url, policy=policy))) for _ in range(EACH)]
        theirs = [stack.enter_context(ExistingWorker(redis_url, f"worker-{n:012x}")) for n in range(EACH)]
        client = stack.enter_context(redis.Redis.from_url(redis_url, decode_responses=True))
        yield Fleets(ours, theirs, client)


def test_an_outage_late_reports_and_the_recovery(fleets: Fleets) -> None:
    fleets.succeed()
    assert (fleets.phases, fleets.skipped) == ({BreakerState.CLOSED}, {False})

    fleets.fail()
    until(lambda: fleets.phases == {BreakerState.OPEN} and fleets.skipped == {True})
    epoch = fleets.client.hget(STATE, "epoch")

    # During the wait: neither late failures, nor late successes, nor a check of theirs change anything.
    fleets.report_late()
    assert fleets.theirs[0].report_api_success()
    fleets.calls += 1
    api = ExistingApi(fleets.theirs[1].manager, lambda: Checked(usage=12.0))
    assert api.status(force_refresh=True)["status"] == "active"
    until(lambda: fleets.skipped == {True} and fleets.theirs[2].read()["state"] != "active")
    assert (fleets.phases, fleets.client.hget(STATE, "epoch")) == ({BreakerState.OPEN}, epoch)

    # Nor do late failures after it.
    end(fleets.client)
    until(lambda: fleets.phases == {BreakerState.HALF_OPEN})
    fleets.report_late()
    until(lambda: fleets.skipped == {True})
    assert fleets.phases == {BreakerState.HALF_OPEN}

    with fleets.ours[0].call():
        fleets.calls += 1
    until(lambda: fleets.phases == {BreakerState.CLOSED} and fleets.skipped == {False})
    fleets.succeed()
    assert fleets.history == [("closed", "open"), ("open", "half_open"), ("half_open", "closed")]


def test_a_success_of_theirs_after_the_wait_brings_all_back(fleets: Fleets) -> None:
    fleets.fail()
    until(lambda: fleets.phases == {BreakerState.OPEN} and fleets.skipped == {True})
    end(fleets.client)
    until(lambda: fleets.phases == {BreakerState.HALF_OPEN})
    assert fleets.theirs[7].report_api_success()
    until(lambda: fleets.phases == {BreakerState.CLOSED} and fleets.skipped == {False})
    assert fleets.history == [("closed", "open"), ("open", "closed")]


def test_no_report_is_lost_on_either_side(fleets: Fleets) -> None:
    fleets.succeed()
    fleets.fail()
    until(lambda: fleets.phases == {BreakerState.OPEN})
    fleets.report_late()
    counted = fleets.client.hgetall(f"openrouter:metrics:{time.strftime('%Y-%m-%d', time.gmtime())}")
    assert int(counted["total_calls"]) == fleets.calls
    failed = int(counted["failed_calls"])
    assert fleets.client.llen(f"openrouter:worker_errors:{time.strftime('%Y-%m-%d', time.gmtime())}") == failed


def test_what_they_open_after_a_quiet_weekend_ours_see_within_a_second(fleets: Fleets) -> None:
    fleets.succeed()
    until(lambda: all(guard._core._live.agent._is_pushed for guard in fleets.ours if guard._core._live))
    with fleets.ours[0].call():
        pass
    fleets.ours[0].flush()
    # One of ours has noticed them, and has told the others, who were calm.
    until(lambda: all(guard._core.view.record.older_writer_at for guard in fleets.ours))
    fleets.client.hset(STATE, "older_writer", str(int(time.time()) - 2 * 86_400))
    yesterday = time.time() - 86_400
    until(lambda: all(0 < guard._core.view.record.older_writer_at < yesterday for guard in fleets.ours))
    for worker in fleets.theirs[:5]:
        assert worker.report_api_error()
    # It looks every second, where calm ones look every twenty; the rest is for a machine that is busy.
    until(lambda: fleets.phases == {BreakerState.OPEN}, seconds=12)
