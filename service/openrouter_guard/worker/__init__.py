"""The worker library: refuse calls while the fleet waits, and report what the others came to.

guard      the public door: ``Guard`` and ``AsyncGuard``
core       what both share: admission, outcomes, and the life of the background agent
agent      the background: keeps the view current, reports, holds permits
pending    results that wait to be reported
view       the local copy of the shared state
observe    what a client library's exception says
reporter   the names that existing workers use
manager    the state as existing readers know it
"""

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
    "report_openrouter_error",
    "report_openrouter_success",
]
