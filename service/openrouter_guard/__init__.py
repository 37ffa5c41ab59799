"""One shared circuit breaker for every worker that calls OpenRouter.

with guard.call(): …    the worker library (``Guard``, ``AsyncGuard``)
openrouter_guard.httpx  transports that guard a whole client (and ``.httpx2``)
openrouter-guard serve  the health service
openrouter-guard operate  the Kubernetes operator

Names are imported on first use, so that a readiness probe does not load redis-py.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import (
        CallNotPermitted,
        ConfigurationError,
        ForeignValue,
        OpenRouterGuardError,
        StateUnreadable,
        StoreContended,
        StoreError,
        StoreRefused,
        StoreUnavailable,
    )
    from .rules.signals import OpenRouterState
    from .settings import Settings
    from .worker import (
        AsyncGuard,
        Guard,
        GuardState,
        OpenRouterStateData,
        OpenRouterStateManager,
        WorkerOpenRouterReporter,
        get_circuit_breaker_status,
        get_openrouter_reporter,
        open_circuit_breaker,
        refusal_in,
        report_openrouter_error,
        report_openrouter_success,
        reset_circuit_breaker,
        was_upstreams_fault,
    )

__all__ = [
    "AsyncGuard",
    "Guard",
    "GuardState",
    "Settings",
    "CallNotPermitted",
    "ConfigurationError",
    "ForeignValue",
    "OpenRouterGuardError",
    "StateUnreadable",
    "StoreContended",
    "StoreError",
    "StoreRefused",
    "StoreUnavailable",
    "OpenRouterState",
    "OpenRouterStateData",
    "OpenRouterStateManager",
    "WorkerOpenRouterReporter",
    "get_openrouter_reporter",
    "refusal_in",
    "report_openrouter_error",
    "report_openrouter_success",
    "get_circuit_breaker_status",
    "open_circuit_breaker",
    "reset_circuit_breaker",
    "was_upstreams_fault",
]

_HOMES = {
    "Settings": ".settings",
    "OpenRouterState": ".rules.signals",
    **dict.fromkeys(
        (
            "CallNotPermitted",
            "ConfigurationError",
            "ForeignValue",
            "OpenRouterGuardError",
            "StateUnreadable",
            "StoreContended",
            "StoreError",
            "StoreRefused",
            "StoreUnavailable",
        ),
        ".errors",
    ),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, ".worker"), __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
