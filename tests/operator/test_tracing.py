"""The operator's spans for OpenTelemetry."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import kopf
import pytest
from prometheus_client import Histogram

from openrouter_guard.rules import transitions
from openrouter_guard.rules.breaker import Policy
from openrouter_guard.rules.shared_state import SharedState
from openrouter_operator.controller import handlers, reconcile
from openrouter_operator.decisions.events import Event
from openrouter_operator.decisions.snapshot import ScopeSnapshot
from tests.operator.samples import workload
from tests.worker.otel import recording


async def test_a_round_is_a_span_with_an_event_for_each_change(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, now = recording(monkeypatch), time.time()
    opened = transitions.now_open(SharedState(epoch=1), "timeout", "w1", now, Policy())
    snapshot = ScopeSnapshot(opened, now, is_fresh=True, last_known_at=now)

    async def round_of(_body: Any) -> Any:
        reconcile._log(workload("chat"), Event("Normal", "Paused", "…"), "timeout", snapshot)
        return SimpleNamespace(events=[], requeue_after_s=5.0)

    operator = SimpleNamespace(reconcile_durations=Histogram("durations", "Durations", registry=None))
    reconciler = SimpleNamespace(reconcile=round_of)
    body = kopf.Body({"metadata": {"namespace": "team-a", "name": "default"}})
    assert await handlers._reconcile_once(cast("Any", operator), cast("Any", reconciler), body) == 5.0
    (span,) = recorder.named("reconcile")
    assert span.attributes == {
        "openrouter_guard.namespace": "team-a",
        "openrouter_guard.resource": "default",
        "openrouter_guard.events": 0,
    }
    ((name, event),) = span.events
    assert name == "openrouter_guard.change"
    assert event["openrouter_guard.workload"] == "Deployment/chat"
    assert event["openrouter_guard.action"] == "Paused"
    assert event["openrouter_guard.epoch"] == opened.epoch
