"""The worker library: refuse calls while the fleet waits, and report what the others came to.

guard      the public door: ``Guard`` and ``AsyncGuard``
core       what both share: admission, outcomes, and the life of the background agent
process    the background of a process that is forked, or ends
mistakes   those of our own: logged, and kept from the caller
agent      the background: keeps the view current, reports, holds permits
pending    results that wait to be reported
view       the local copy of the shared state
watch      who waits for the breaker, and who listens to it
observe    what a client library's exception, or an answer, says
causes     what lies behind an exception
libraries  what the exceptions of client libraries mean, by their names
evidence   the status, the headers and the body that they carry
reading    what an HTTP answer says while its bytes go by
search     the error in a body too large to be kept
events     server-sent events in bytes that come in any pieces
exchange   a guarded call as an HTTP exchange, for the transports
reporter   the names that existing workers use
manager    the state as existing readers and writers know it
state_data what it holds, with or without pydantic
panel      the breaker for the panel of a worker process
connecting what these are given: a client, an address, or nothing
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
    """The data model is made when it is first asked for: where pydantic is installed, importing it takes long."""
    if name != "OpenRouterStateData":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .legacy import state_data

    return state_data.OpenRouterStateData
