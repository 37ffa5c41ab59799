"""``/livez``, ``/readyz`` and ``/metrics`` of this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from aiohttp import web

from openrouter_guard.errors import ConfigurationError

__all__ = ["serving"]

Faults = Callable[[], Sequence[str]]
"""What is wrong; empty if nothing is."""


@asynccontextmanager
async def serving(
    host: str, port: int, *, alive: Faults, ready: Faults, metrics: Callable[[str], tuple[bytes, str]]
) -> AsyncIterator[int]:
    """Answer probes and Prometheus as long as the context lasts; yields the port.

    Raises:
        ConfigurationError: If the port is taken.
    """
    app = web.Application()
    app.add_routes([web.get("/livez", _answer(alive)), web.get("/readyz", _answer(ready))])

    async def told(request: web.Request) -> web.Response:
        body, content_type = metrics(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    app.add_routes([web.get("/metrics", told)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield int(runner.addresses[0][1])
    except OSError as error:
        raise ConfigurationError(f"the probes cannot listen on {host}:{port}: {error.strerror}") from error
    finally:
        await runner.cleanup()


def _answer(faults: Faults) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handler(_request: web.Request) -> web.Response:
        found = faults()
        return web.Response(status=503 if found else 200, text="; ".join(found) or "ok")

    return handler
