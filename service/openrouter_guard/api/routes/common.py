"""What the routes share: whose state is asked for."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request

from openrouter_guard.api.problems import UnknownScope
from openrouter_guard.api.service import Service

__all__ = ["PREFIX", "Scope", "of_app", "of_scope"]

PREFIX = "/api/v1/openrouter"

Scope = Annotated[
    str | None,
    Query(description="Whose state; the configured scope if left out", max_length=40, examples=["default"]),
]


# Not dependencies: resolving them would take longer than all of the service's own work for a request.
def of_app(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def of_scope(request: Request, scope: str | None) -> Service:
    service = of_app(request)
    if scope not in (None, service.settings.scope):
        raise UnknownScope(f"This service looks after scope {service.settings.scope!r} only")
    return service
