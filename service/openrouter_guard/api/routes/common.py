"""What the routes share: whose state is asked for."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request

from openrouter_guard.api.problems import UnknownScope
from openrouter_guard.api.scopes import Scopes
from openrouter_guard.api.service import Service

__all__ = ["PREFIX", "Scope", "of_app", "of_scope"]

PREFIX = "/api/v1/openrouter"

Scope = Annotated[
    str | None,
    Query(description="Whose state; the configured scope if left out", max_length=40, examples=["default"]),
]


# Not dependencies: resolving them would take longer than all of the service's own work for a request.
def of_app(request: Request) -> Scopes:
    scopes: Scopes = request.app.state.scopes
    return scopes


def of_scope(request: Request, scope: str | None) -> Service:
    scopes = of_app(request)
    service = scopes.find(scope)
    if service is None:
        raise UnknownScope(f"This service does not look after that scope: choose one of {', '.join(scopes.names)}")
    return service
