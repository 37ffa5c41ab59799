"""A real browser on a real health service."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from playwright.async_api import Browser, async_playwright

from openrouter_guard.api import create_app
from openrouter_guard.settings import Settings
from openrouter_guard.store import Batch, Store
from tests.ports import free_port
from tests.service.apps import FakeUpstream, eventually, open_breaker

__all__ = ["IS_REQUIRED", "MISSING", "browsing", "find_chromium", "outage", "serving"]

IS_REQUIRED = os.environ.get("TESTS_REQUIRE_BROWSER") == "1"
MISSING = (
    "The status page is tested in Chromium, and there is none in PATH: install the package chromium of your "
    "distribution (Debian: apt-get install chromium), or name a program in CHROMIUM"
)
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    """The browser of this machine, or the program that CHROMIUM names."""
    named = os.environ.get("CHROMIUM")
    return named or next((found for name in _NAMES if (found := shutil.which(name))), None)


@asynccontextmanager
async def browsing(program: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        # Root, as in most containers, cannot use Chromium's sandbox; the only page it sees is our own.
        browser = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def serving(settings: Settings, upstream: FakeUpstream, port: int = 0) -> AsyncIterator[str]:
    """The address of a running service."""
    port = port or free_port()
    config = uvicorn.Config(
        create_app(settings, transport=upstream.transport),
        host="127.0.0.1",
        port=port,
        lifespan="on",
        ws="none",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: server.started or running.done(), seconds=20)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await running


async def outage(store: Store, settings: Settings) -> None:
    """Five failures of workers, as they report them, and the open breaker that follows."""
    fields = {"state": "service_unavailable", "message": "HTTP 503: no provider answers"}
    await store.count(Batch(0, "summaries-1", time.time_ns(), [("F", 5)], fields=fields), at=time.time())
    await open_breaker(store, settings)
