"""Assembles the health service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from openrouter_guard.settings import Settings
from openrouter_guard.upstream import Transport
from openrouter_guard.version import package_version

from .http import problems
from .http.auth import OPEN_PATHS, Access, ReadersOnly
from .http.concurrency import ConcurrencyLimit
from .http.middleware import ResponseMiddleware
from .http.token_review import Reviews
from .openapi import completed
from .routes import ROUTERS
from .routes.common import PREFIX
from .scope.scopes import Scopes
from .status_fast_path import StatusFastPath

__all__ = ["create_app"]

STATUS_PATH = f"{PREFIX}/status"
_QUICK = {STATUS_PATH, f"{PREFIX}/gate", f"{PREFIX}/events", f"{PREFIX}/reports", f"{PREFIX}/override"}
"""These requests are cheap to answer, or first read a body, for which the client may take its time."""
_DESCRIPTION = """\
The state of OpenRouter as seen by a whole fleet, answered from memory.

Workers report the results of their calls to one shared circuit breaker. This service checks the key once a minute at
most, however many replicas and clients there are. Errors are
[problem details](https://www.rfc-editor.org/rfc/rfc9457).
"""
_TAGS = [
    {"name": "state", "description": "The state of OpenRouter."},
    {"name": "record", "description": "History, workers and models."},
    {"name": "write", "description": "Reports, permits and overrides; each needs a token."},
    {"name": "process", "description": "This process only, for Kubernetes and Prometheus."},
]


_CORS: dict[str, Any] = {
    "allow_methods": ["GET", "HEAD"],
    "allow_headers": ["Authorization", "If-None-Match", "Last-Event-ID"],
    "expose_headers": ["Age", "ETag", "Retry-After", "X-Cache"],
}


class _App(FastAPI):
    prepared: StatusFastPath

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.prepared(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        return completed(super().openapi(), needs_token=self.state.access.is_needed_to_read)


def create_app(settings: Settings, *, transport: Transport | None = None) -> FastAPI:
    """Create the health service as an ASGI app, for one run of its lifespan.

    Args:
        settings: All settings of the service.
        transport: Takes the calls to OpenRouter instead of the network, for tests.

    Raises:
        ConfigurationError: If a setting cannot be used.
    """
    scopes = Scopes(settings, transport)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await scopes.start()
        try:
            yield
        finally:
            await scopes.stop()

    app = _App(
        title="OpenRouter Guard",
        version=package_version(),
        description=_DESCRIPTION,
        openapi_tags=_TAGS,
        # Generated clients then name their functions `status`, and not `status_api_v1_openrouter_status_get`.
        generate_unique_id_function=lambda route: route.name,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.scopes = scopes
    app.state.service = scopes.default
    limited = ConcurrencyLimit(super(_App, app).__call__, _QUICK, OPEN_PATHS)
    app.prepared = StatusFastPath(limited, scopes.default, STATUS_PATH)
    for router in ROUTERS:
        app.include_router(router)
    reporters = settings.tokens.reporters
    access = app.state.access = Access(settings.tokens, Reviews(reporters) if reporters.namespaces else None)
    if access.is_needed_to_read:
        app.add_middleware(ReadersOnly, access=access, scope=settings.scope)
    if settings.cors_origins:
        app.add_middleware(CORSMiddleware, allow_origins=settings.cors_origins, **_CORS)
    # The last middleware is the outermost, so the answers of the others get its headers too.
    app.add_middleware(ResponseMiddleware, telemetry=scopes.telemetry)
    problems.install(app, [route for router in ROUTERS for route in router.routes])
    return app
