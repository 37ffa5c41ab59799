"""``/livez``, ``/readyz`` and ``/metrics`` of this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from aiohttp import web

from openrouter_guard.background import cancelled
from openrouter_guard.certificates import Certificate
from openrouter_guard.errors import ConfigurationError
from openrouter_guard.tls import RenewedContext

__all__ = ["serving"]

Faults = Callable[[], Sequence[str]]
"""Return the problems; empty without any."""
RENEW_S = 10.0
"""A certificate that is renewed is served within this time."""


@asynccontextmanager
async def serving(
    host: str,
    port: int,
    *,
    alive: Faults,
    ready: Faults,
    metrics: Callable[[str], tuple[bytes, str]],
    certificate: Certificate | None = None,
) -> AsyncIterator[int]:
    """Answer probes and Prometheus as long as the context lasts; yield the port.

    Raises:
        ConfigurationError: If the port is taken, or the certificate cannot be used.
    """
    tls = RenewedContext(certificate) if certificate else None
    app = web.Application()
    app.add_routes([web.get("/livez", _answer(alive)), web.get("/readyz", _answer(ready))])

    async def told(request: web.Request) -> web.Response:
        body, content_type = metrics(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    app.add_routes([web.get("/metrics", told)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    renewing = asyncio.create_task(_renew(tls)) if tls else None
    try:
        await web.TCPSite(runner, host, port, ssl_context=tls.context if tls else None).start()
        yield int(runner.addresses[0][1])
    except OSError as error:
        raise ConfigurationError(f"the probes cannot listen on {host}:{port}: {error.strerror}") from error
    finally:
        if renewing:
            await cancelled(renewing)
        await runner.cleanup()


async def _renew(tls: RenewedContext) -> None:
    while True:
        await asyncio.sleep(RENEW_S)
        tls.look()


def _answer(faults: Faults) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handler(_request: web.Request) -> web.Response:
        found = faults()
        return web.Response(status=503 if found else 200, text="; ".join(found) or "ok")

    return handler
