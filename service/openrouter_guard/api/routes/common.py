"""What the routes share: whose state is asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Annotated, TypeVar

from fastapi import Query, Request

from openrouter_guard.api.answers import XCache
from openrouter_guard.api.problems import UnknownScope
from openrouter_guard.api.scopes import Scopes
from openrouter_guard.api.service import Service

__all__ = ["PREFIX", "Scope", "of_app", "of_scope", "read"]

T = TypeVar("T")

PREFIX = "/api/v1/openrouter"

Scope = Annotated[
    str | None,
    Query(description="Whose state; the configured scope if left out", max_length=40, examples=["default"]),
]


# Not dependencies: resolving them would take longer than all of the service's own work for a request.
def of_app(request: Request) -> Scopes:
    scopes: Scopes = request.app.state.scopes
    return scopes


async def read(service: Service, question: Hashable, ask: Callable[[], Awaitable[T]]) -> tuple[T, XCache]:
    """What is read from Redis, once for all who ask for the same in a moment, and what ``X-Cache`` says of it."""
    answer, was_there = await service.recent.get(question, service.version, ask)
    return answer, XCache.HIT if was_there else XCache.MISS


def of_scope(request: Request, scope: str | None) -> Service:
    scopes = of_app(request)
    service = scopes.find(scope)
    if service is None:
        raise UnknownScope(f"This service does not look after that scope: choose one of {', '.join(scopes.names)}")
    return service
