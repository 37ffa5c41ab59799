"""What an OpenTelemetry SDK would get: providers that keep spans, events and measurements, on the real API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry import metrics, trace

__all__ = ["Kept", "RaisingTracer", "Recorder", "recording"]


@dataclass(eq=False)
class Kept(trace.NonRecordingSpan):
    """A span, and all that was put into it."""

    name: str
    attributes: dict[str, Any] = field(default_factory=dict)
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    has_ended: bool = False

    def __post_init__(self) -> None:
        super().__init__(trace.INVALID_SPAN_CONTEXT)

    def is_recording(self) -> bool:
        return not self.has_ended

    def set_attributes(self, attributes: Any) -> None:
        self.attributes |= attributes

    def add_event(self, name: str, attributes: Any = None, timestamp: Any = None) -> None:
        self.events.append((name, dict(attributes or {})))

    def end(self, end_time: Any = None) -> None:
        self.has_ended = True


@dataclass
class Recorder:
    """Both providers."""

    spans: list[Kept] = field(default_factory=list)
    measured: dict[str, list[tuple[float, dict[str, Any]]]] = field(default_factory=dict)

    def get_tracer(self, *_args: Any, **_options: Any) -> Recorder:
        return self

    get_meter = get_tracer

    @contextmanager
    def start_as_current_span(
        self,
        name: str,
        *,
        attributes: Any = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> Iterator[Kept]:
        assert not record_exception, "the text of an exception may hold anything"
        assert not set_status_on_exception
        span = Kept(name, dict(attributes or {}))
        self.spans.append(span)
        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            yield span

    def create_counter(self, name: str, **_about: Any) -> Instrument:
        return Instrument(self.measured.setdefault(name, []))

    create_histogram = create_counter

    def named(self, name: str) -> list[Kept]:
        return [span for span in self.spans if span.name == f"openrouter_guard.{name}"]


@dataclass(frozen=True)
class RaisingTracer:
    """Raises what a processor raises when a span begins or ends, from where the SDK lets it out."""

    where: str

    @contextmanager
    def start_as_current_span(self, _name: str, **_options: Any) -> Iterator[trace.Span]:
        if self.where == "begins":
            raise RuntimeError
        try:
            yield trace.INVALID_SPAN
        finally:
            if self.where == "ends":
                raise RuntimeError


@dataclass
class Instrument:
    found: list[tuple[float, dict[str, Any]]]

    def add(self, amount: float, attributes: dict[str, Any]) -> None:
        self.found.append((amount, attributes))

    record = add


def recording(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Set both providers for one test."""
    recorder = Recorder()
    monkeypatch.setattr(trace, "get_tracer", recorder.get_tracer)
    monkeypatch.setattr(metrics, "get_meter", recorder.get_meter)
    monkeypatch.setattr("openrouter_guard.tracing._instruments", {})
    return recorder
