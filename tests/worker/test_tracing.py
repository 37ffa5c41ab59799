"""OpenTelemetry: what a process with an SDK gets, and that nothing needs it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry import trace

from openrouter_guard import CallNotPermitted, Guard, tracing
from openrouter_guard.settings import Settings
from openrouter_guard.store import Store
from tests.service.apps import FakeUpstream, ask, eventually, open_breaker, running
from tests.service.webhook_receiver import receiver
from tests.worker.otel import Kept, RaisingTracer, Recorder, recording


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return recording(monkeypatch)


@pytest.fixture
def settings(redis_url: str) -> Settings:
    return Settings(redis_url, api_key="sk-or-v1-0123456789abcdef", worker_id="w1")


async def test_a_refused_call_marks_the_callers_span(recorder: Recorder, settings: Settings, store: Store) -> None:
    record = await open_breaker(store, settings)
    with Guard(settings) as guard:
        span = Kept("handle request")
        with trace.use_span(span), pytest.raises(CallNotPermitted) as refused, guard.call():
            pytest.fail("the call was made")
        guard.flush()
    (name, event) = span.events[0]
    known = {
        "openrouter_guard.scope": "default",
        "openrouter_guard.epoch": record.epoch,
        "openrouter_guard.reason": refused.value.reason,
    }
    assert name == "openrouter_guard.refused"
    assert event.items() > known.items()
    assert span.attributes == known | {"openrouter_guard.refused": True}
    assert recorder.measured["openrouter_guard.worker.refused_calls"] == [(1, {"openrouter_guard.scope": "default"})]
    ((lag_s, _),) = recorder.measured["openrouter_guard.worker.report_lag"]
    assert lag_s >= 0


async def test_checks_transitions_and_the_webhook_are_spans_without_secrets(
    recorder: Recorder, settings: Settings, store: Store
) -> None:
    with receiver() as hook:
        telling = replace(settings, webhook_url=hook.url)
        async with running(telling, FakeUpstream()) as service:
            await ask(service)
            record = await open_breaker(store, telling)
            await eventually(lambda: [span for span in recorder.named("webhook") if span.has_ended])
    (webhook,) = recorder.named("webhook")
    assert webhook.attributes["openrouter_guard.result"] == "sent"
    assert recorder.named("health_check")[0].attributes["openrouter_guard.state"] == "active"
    (transition,) = recorder.named("transition")
    assert transition.attributes["openrouter_guard.epoch"] == record.epoch
    assert transition.attributes["openrouter_guard.to"] == "open"
    said = str([span.attributes for span in recorder.spans])
    assert hook.url not in said
    assert settings.api_key not in said


def test_of_an_exception_a_span_has_the_type_alone(recorder: Recorder) -> None:
    with pytest.raises(ValueError, match="hunter2"), tracing.span("reconcile"):
        raise ValueError("hunter2")
    assert recorder.spans[0].attributes == {"openrouter_guard.error": "ValueError"}


def test_a_broken_sdk_disturbs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: Any, **_options: Any) -> Any:
        raise RuntimeError

    monkeypatch.setattr(trace, "get_tracer", broken)
    monkeypatch.setattr(trace, "get_current_span", broken)
    with tracing.span("webhook") as span:
        span.set(result="sent")
    tracing.note_refusal("default", 1, "error", 1.0)
    tracing.note_event("change", {})


@pytest.mark.parametrize("where", ["begins", "ends"])
def test_a_processor_that_raises_keeps_no_work_from_being_done(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    # The SDK runs its samplers and processors in the context of the span, and lets their errors out.
    monkeypatch.setattr(trace, "get_tracer", lambda *_args, **_options: RaisingTracer(where))
    done = False
    with tracing.span("health_check") as span:
        span.set(result="well")
        done = True
    assert done
    with pytest.raises(KeyError, match="own"), tracing.span("reconcile"):
        raise KeyError("own")


def test_nothing_needs_opentelemetry() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None; from openrouter_guard import Guard, tracing;"
        "tracing.note_refusal('default', 1, 'error', 1.0); tracing.count_refused('default', 1);"
        "tracing.measure_report_lag('default', 1.0); tracing.note_event('change', {});"
        "tracing.span('webhook').__enter__().set(result='sent')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
