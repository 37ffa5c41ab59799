"""The worker library: refuses calls while the fleet waits, and reports the results of the others.

guard           the public classes ``Guard`` and ``AsyncGuard``
core            admission, the end of a call, and the lifetime of the background
view            the local copy of the shared state, as read by calls
lane, lanes     this process' share of a ramp, for the fleet and for each model
grants          starts and permits that ``wait()`` has taken for the next call
watchers        tasks that wait for the breaker, and its listeners
own_errors      bugs of the guard: logged once, and kept from the caller
http            the transports for HTTP clients
classification  the meaning of an exception or an answer
reporting       the background: batches, permits, decisions while Redis is away
threads         the background thread, forked children, signals
legacy          the classes and functions of the existing system
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .classification.causes import refusal_in
from .classification.classify import was_upstreams_fault
from .guard import AsyncGuard, Guard
from .guard_state import GuardState
from .legacy.manager import OpenRouterStateManager
from .legacy.panel import get_circuit_breaker_status, open_circuit_breaker, reset_circuit_breaker
from .legacy.reporter import (
    WorkerOpenRouterReporter,
    get_openrouter_reporter,
    report_openrouter_error,
    report_openrouter_success,
)

if TYPE_CHECKING:
    from .legacy.state_data import OpenRouterStateData

__all__ = [
    "AsyncGuard",
    "Guard",
    "GuardState",
    "OpenRouterStateData",
    "OpenRouterStateManager",
    "WorkerOpenRouterReporter",
    "get_circuit_breaker_status",
    "get_openrouter_reporter",
    "refusal_in",
    "open_circuit_breaker",
    "report_openrouter_error",
    "report_openrouter_success",
    "reset_circuit_breaker",
    "was_upstreams_fault",
]


def __getattr__(name: str) -> Any:
    """The data model is created on first use: importing pydantic, if installed, takes long."""
    if name != "OpenRouterStateData":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .legacy import state_data

    return state_data.OpenRouterStateData
