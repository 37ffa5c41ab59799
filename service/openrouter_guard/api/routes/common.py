"""Shared parts of the routes: the scope, and the check of parameters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Hashable, Set
from typing import Annotated, Any, TypeVar

from fastapi import Query, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute

from openrouter_guard.api.http.conditional import XCache
from openrouter_guard.api.http.problems import UnknownParameters, UnknownScope
from openrouter_guard.api.scope.scopes import Scopes
from openrouter_guard.api.scope.service import Service
from openrouter_guard.variables import nearest

__all__ = [
    "FULL",
    "PREFIX",
    "Lenient",
    "Route",
    "Scope",
    "UnknownParameters",
    "of_app",
    "of_scope",
    "read",
    "unknown_parameters",
    "unknown_scope",
]

T = TypeVar("T")

PREFIX = "/api/v1/openrouter"
FULL = (
    "This process has reached its limit of open requests over all scopes (OPENROUTER_GUARD_MAX_STREAMS), or is "
    "stopping: try another replica"
)

Scope = Annotated[
    str | None,
    Query(description="Scope to use; default: the configured scope", max_length=40, examples=["default"]),
]


# Not dependencies: resolving them would take longer than all of the service's own work for a request.
def of_app(request: Request) -> Scopes:
    scopes: Scopes = request.app.state.scopes
    return scopes


async def read(service: Service, question: Hashable, ask: Callable[[], Awaitable[T]]) -> tuple[T, XCache]:
    """Read from Redis, once for all simultaneous requests for the same data; return the value and its ``X-Cache``."""
    answer, was_there = await service.recent.get(question, service.version, ask)
    return answer, XCache.HIT if was_there else XCache.MISS


def of_scope(request: Request, scope: str | None) -> Service:
    scopes = of_app(request)
    service = scopes.find(scope)
    if service is None:
        raise UnknownScope(unknown_scope(scopes))
    return service


def unknown_scope(scopes: Scopes) -> str:
    return f"This service does not handle that scope: choose one of {', '.join(scopes.names)}"


class Route(APIRoute):
    """Refuses an unknown query parameter: ``?scop=team-a`` must not answer for another scope."""

    is_lenient = False

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        known = frozenset(str(field.alias) for field in self.dependant.query_params)

        async def checked(request: Request) -> Response:
            if request.scope["query_string"]:
                mistyped = unknown_parameters(request, known, lenient=self.is_lenient)
                if mistyped:
                    raise UnknownParameters(mistyped)
            return await handle(request)

        return checked


class Lenient(Route):
    """Accepts foreign parameters where existing clients send them, such as ``?_=1772366400``, but no typo."""

    is_lenient = True


def unknown_parameters(request: Request, known: Set[str], *, lenient: bool) -> dict[str, str]:
    """Return the parameters that are not in *known*, each with the likely intended one, or nothing.

    Args:
        request: The request with the query.
        known: The parameters of the route.
        lenient: Ignore parameters that resemble none of *known*.
    """
    found = {name: nearest(name.lower().replace("-", "_"), known) for name in request.query_params.keys() - known}
    return {name: meant for name, meant in found.items() if meant or not lenient}
