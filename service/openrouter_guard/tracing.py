"""Spans, events and measurements for OpenTelemetry, in a process that has set it up; else nothing, at no cost.

Nothing is imported here: without ``opentelemetry`` in the process, no SDK can be configured. Attributes hold no
secret, and neither the text of an exception nor a body.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, TypeAlias

from .version import package_version

__all__ = ["Attributes", "count_refused", "measure_report_lag", "note_event", "note_refusal", "span"]

Attributes: TypeAlias = Mapping[str, str | int | float | bool]
PREFIX = "openrouter_guard"
LAGS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper limits of the buckets: the default ones are for milliseconds."""
_instruments: dict[str, Any] = {}


class Span:
    """The running span, or none; setting its attributes never fails."""

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def set(self, **attributes: str | float | bool) -> None:
        if self._span is not None:
            with suppress(Exception):
                self._span.set_attributes(_named(attributes))


@contextmanager
def span(name: str, **attributes: str | float | bool) -> Iterator[Span]:
    """Run the body in a span ``openrouter_guard.<name>``; of an exception it has the type alone."""
    context = _started(name, attributes)
    told = Span(_entered(context))
    try:
        yield told
    except Exception as error:
        told.set(error=type(error).__qualname__)
        raise
    finally:
        with suppress(Exception):  # processors run where a span ends, and may raise
            context.__exit__(None, None, None)


def note_event(name: str, attributes: Attributes) -> None:
    """Add an event to the caller's current span."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is not None:
        with suppress(Exception):  # whatever another library does, a call goes on
            current = trace.get_current_span()
            if current.is_recording():
                current.add_event(f"{PREFIX}.{name}", _named(attributes))


def note_refusal(scope: str, epoch: int, reason: str, retry_after_s: float) -> None:
    """Mark the caller's current span: its call was refused."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is not None:
        with suppress(Exception):
            current = trace.get_current_span()
            if current.is_recording():
                facts = _named({"scope": scope, "epoch": epoch, "reason": reason})
                current.set_attributes({**facts, f"{PREFIX}.refused": True})
                current.add_event(f"{PREFIX}.refused", {**facts, f"{PREFIX}.retry_after_s": retry_after_s})


def count_refused(scope: str, number: int) -> None:
    """Count refused calls of this process."""
    _measured(
        "refused_calls",
        lambda meter, name: meter.create_counter(name, unit="{call}", description="Calls that were refused"),
        lambda counter: counter.add(number, _named({"scope": scope})),
    )


def measure_report_lag(scope: str, seconds: float) -> None:
    """Measure how old the oldest result of a report was when Redis had counted it."""
    _measured(
        "report_lag",
        lambda meter, name: meter.create_histogram(
            name,
            unit="s",
            description="Age of the oldest result of a report once it is counted",
            explicit_bucket_boundaries_advisory=LAGS_S,
        ),
        lambda histogram: histogram.record(max(seconds, 0.0), _named({"scope": scope})),
    )


def _measured(name: str, create: Callable[[Any, str], Any], use: Callable[[Any], None]) -> None:
    metrics = sys.modules.get("opentelemetry.metrics")
    if metrics is not None:
        with suppress(Exception):
            if name not in _instruments:
                meter = metrics.get_meter(PREFIX, package_version())
                _instruments[name] = create(meter, f"{PREFIX}.worker.{name}")
            use(_instruments[name])


def _started(name: str, attributes: Attributes) -> AbstractContextManager[Any]:
    """Return the context of a new span; an empty one without OpenTelemetry."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is not None:
        with suppress(Exception):
            context: AbstractContextManager[Any] = trace.get_tracer(PREFIX, package_version()).start_as_current_span(
                f"{PREFIX}.{name}",
                attributes=_named(attributes),
                record_exception=False,
                set_status_on_exception=False,
            )
            return context
    return nullcontext()


def _entered(context: AbstractContextManager[Any]) -> Any:
    """Return the span that runs; None if samplers or processors, which run here, raise."""
    with suppress(Exception):
        return context.__enter__()
    return None


def _named(attributes: Attributes) -> dict[str, str | int | float | bool]:
    """Return the attributes by their full names."""
    return {f"{PREFIX}.{name}": value for name, value in attributes.items()}
