"""The worker library: refuse calls while the fleet waits, and report what the others came to.

guard      the public door: ``Guard`` and ``AsyncGuard``
core       what both share: admission, outcomes, and the life of the background agent
process    the background of a process that is forked, or ends
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
manager    the state as existing readers know it
"""

from .causes import refusal_in
from .core import GuardState
from .guard import AsyncGuard, Guard
from .manager import OpenRouterStateData, OpenRouterStateManager
from .reporter import (
    WorkerOpenRouterReporter,
    get_openrouter_reporter,
    report_openrouter_error,
    report_openrouter_success,
)

__all__ = [
    "AsyncGuard",
    "Guard",
    "GuardState",
    "OpenRouterStateData",
    "OpenRouterStateManager",
    "WorkerOpenRouterReporter",
    "get_openrouter_reporter",
    "refusal_in",
    "report_openrouter_error",
    "report_openrouter_success",
]
