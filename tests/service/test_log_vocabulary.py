"""One change of the breaker in the logs of a worker, the service and the operator: the same facts and names."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from openrouter_guard import Guard
from openrouter_guard.rules import log_facts, transitions
from openrouter_guard.rules.override import Override, OverrideKind
from openrouter_guard.settings import Settings
from openrouter_guard.store import Store
from openrouter_operator.controller import reconcile
from openrouter_operator.decisions.events import Event
from openrouter_operator.decisions.snapshot import ScopeSnapshot
from openrouter_operator.shared_state.feed import Feed
from tests.operator.samples import workload
from tests.service.apps import KEY, FakeUpstream, ask, eventually, open_breaker, running

PARTS = {
    "service": "openrouter_guard.api.scope.transition_log",
    "worker": "openrouter_guard.worker.transition_line",
    "operator": "openrouter_operator.shared_state.transition_line",
}


@pytest.fixture(autouse=True)
def everything_is_heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "openrouter_guard")
    caplog.set_level(logging.INFO, "openrouter_operator")


def facts(record: logging.LogRecord) -> dict[str, Any]:
    usual = vars(logging.makeLogRecord({})).keys() | {"message", "asctime", "taskName"}
    return {name: value for name, value in vars(record).items() if name not in usual}


def told(caplog: pytest.LogCaptureFixture, part: str, **wanted: str) -> list[dict[str, Any]]:
    found = [facts(record) for record in caplog.records if record.name == PARTS[part]]
    return [each for each in found if wanted.items() <= each.items()]


async def test_all_parts_say_the_same_of_a_change(
    settings: Settings, upstream: FakeUpstream, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    feed = Feed(settings, "operator", lambda _scope: None)
    with Guard(replace(settings, worker_id="w1")) as guard:
        async with running(settings, upstream) as service:
            await ask(service)
            guard.on_transition(lambda _before, _after: None)
            assert guard.wait(30)
            await feed.start()
            try:
                await store.change(
                    lambda record, now: (
                        record
                        and transitions.overridden(
                            record, Override(OverrideKind.FORCED_OPEN, "ada", f"Pay {KEY}", now + 600), now
                        )
                    )
                )
                for part in PARTS:
                    await eventually(partial(told, caplog, part, to="open"))
            finally:
                await feed.stop()
    said = {part: told(caplog, part, to="open") for part in PARTS}
    (first,) = said["service"]
    assert said == {part: [first] for part in PARTS}
    assert set(first) == set(log_facts.CHANGE)
    assert first["why"] == "Pay [key]"
    assert (first["scope"], first["from"], first["reason"], first["by"]) == (
        "default",
        "closed",
        "forced_open",
        "ada",
    )


async def test_a_pause_has_the_epoch_of_the_change_that_it_follows(
    settings: Settings, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    record = await open_breaker(store, settings)
    snapshot = ScopeSnapshot(record, time.time(), is_fresh=True, last_known_at=time.time(), scope="default")
    reconcile._log(workload("chat"), Event("Normal", "Paused", "…"), snapshot.cause, snapshot)
    (line,) = [each for each in caplog.records if each.name == reconcile.__name__]
    assert set(facts(line)) == set(log_facts.PAUSE)
    assert facts(line)["epoch"] == record.epoch
    assert facts(line)["reason"] == record.transitions[-1].reason
