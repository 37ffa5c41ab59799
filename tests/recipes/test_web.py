"""Web applications answer 503 with Retry-After while calls are refused; also with forked workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from openrouter_guard import Guard
from openrouter_guard.store import Store
from openrouter_guard.testing import SimulatedOpenRouter
from tests.ports import free_port
from tests.recipes.code import code_under, environment, running
from tests.waiting import until
from tests.worker.guards import counters, fail

pytestmark = pytest.mark.slow

CHAT = "/chat/completions"
ALONE = {"Connection": "close"}
"""Each request on a connection of its own, so that any worker may take it."""


@pytest.fixture
def environ(redis_url: str, base_url: str) -> dict[str, str]:
    return environment(redis_url, base_url)


@contextmanager
def serving(folder: Path, environ: dict[str, str], *command: str) -> Iterator[httpx.Client]:
    """A client of the server that *command* starts on the port at its end."""
    port = free_port()
    with (
        running(folder, environ, *command[:-1], f"{command[-1]}{port}"),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client,
    ):
        until(lambda: is_up(client), seconds=20)
        yield client


def is_up(client: httpx.Client) -> bool:
    try:
        return client.get("/up").status_code > 0
    except httpx.TransportError:
        return False


def test_fastapi(
    environ: dict[str, str], tmp_path: Path, guard: Guard, stop: Callable[[], None], simulated: SimulatedOpenRouter
) -> None:
    (recipe,) = code_under("FastAPI")
    (tmp_path / "web.py").write_text(recipe)
    ask = {"question": "Why?"}
    with serving(tmp_path, environ, "uvicorn", "web:app", "--port=") as client:
        assert client.post("/answers", params=ask).json() == "This is a simulated answer."
        stop()
        until(lambda: client.post("/answers", params=ask).status_code == 503)
        asked = simulated.requests[CHAT]
        refused = client.post("/answers", params=ask)
        assert guard.state.retry_after_s <= int(refused.headers["retry-after"]) <= guard.state.retry_after_s + 2
        assert refused.headers["openrouter-guard"] == "refused; reason=timeout"
        assert refused.json()["detail"].startswith("calls to OpenRouter are paused (timeout)")
        assert simulated.requests[CHAT] == asked


FORKED = """
import os
from openrouter_guard import CallNotPermitted, Guard

guard = Guard.from_env()
with guard.call():
    pass
guard.flush()
PARENT = os.getpid()


def app(environ, start_response):
    status = "200 OK"
    try:
        if environ["PATH_INFO"] != "/up":
            with guard.call() as call:
                call.answered(503 if environ["PATH_INFO"] == "/fails" else 200)
    except CallNotPermitted:
        status = "503 Service Unavailable"
    start_response(status, [("Worker", str(os.getpid())), ("Forked", str(os.getpid() != PARENT))])
    return [b""]
"""


@pytest.mark.parametrize("kind", ["--worker-class=sync", "--threads=4"])
async def test_workers_that_were_forked_with_a_guard_in_use_share_the_breaker_and_lose_no_report(
    environ: dict[str, str], tmp_path: Path, guard: Guard, store: Store, kind: str
) -> None:
    (tmp_path / "web.py").write_text(FORKED)
    command = ("gunicorn", "web:app", "--preload", "--workers=2", kind, "--bind=127.0.0.1:")
    with serving(tmp_path, environ, *command) as client:
        workers = Counter[str]()
        while len(workers) < 2 or workers.total() < 20:
            answer = client.get("/", headers=ALONE)
            assert answer.headers["forked"] == "True"
            workers[answer.headers["worker"]] += 1
        failing = Counter[str]()
        while len(failing) < 2:
            failing[client.get("/fails", headers=ALONE).headers["worker"]] += 1
        fail(guard, 5)
        until(lambda: {client.get("/fails", headers=ALONE).status_code for _ in range(8)} == {503})
    found = await counters(store)
    assert found["successful_calls"] == 1 + workers.total()
    assert found["failed_calls"] >= failing.total() + 5
