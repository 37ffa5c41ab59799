"""The scopes of one process: each has a key, a state and checks of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from openrouter_guard.api.http.open_requests import OpenRequests
from openrouter_guard.api.telemetry.registry import Telemetry
from openrouter_guard.settings import Settings
from openrouter_guard.upstream import Transport

from .service import Service

__all__ = ["Scopes"]


class Scopes:
    """A service for each scope; the first one is the default.

    Raises:
        ConfigurationError: On creation, if an address or a scope cannot be used.
    """

    def __init__(self, settings: Settings, transport: Transport | None = None) -> None:
        self.telemetry = Telemetry()
        open_requests = OpenRequests(settings.thresholds.max_streams)
        self._services = {
            each.scope: Service(each, transport, self.telemetry, open_requests) for each in settings.for_each_scope()
        }
        self.default = self._services[settings.scope]

    @property
    def names(self) -> list[str]:
        return list(self._services)

    def __iter__(self) -> Iterator[Service]:
        return iter(self._services.values())

    def find(self, scope: str | None) -> Service | None:
        """Return the service of that scope, or None."""
        return self.default if scope is None else self._services.get(scope)

    @property
    def is_ready(self) -> bool:
        return all(service.is_ready for service in self)

    def stalled(self) -> list[str]:
        """Return the parts of this process that make no progress, with the scope unless it is the first."""
        return [
            part if service is self.default else f"{part} of {service.settings.scope}"
            for service in self
            for part in service.stalled()
        ]

    async def start(self) -> None:
        await asyncio.gather(*(service.start() for service in self))

    def drain(self) -> None:
        """Prepare for the shutdown: accept no new requests and end streams, because the server waits for them."""
        for service in self:
            service.drain()

    async def stop(self) -> None:
        await asyncio.gather(*(service.stop() for service in self))
