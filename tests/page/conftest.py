"""Fixtures of the status page's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, expect

from openrouter_guard.settings import Settings
from openrouter_guard.store import Store
from tests.page.browsing import IS_REQUIRED, MISSING, browsing, find_chromium, serving
from tests.service.apps import KEY, FakeUpstream

# One event loop for the module, for the browser, which takes seconds to start, lives in it.
expect.set_options(timeout=30_000)
fixture = pytest_asyncio.fixture(loop_scope="module")


@pytest.fixture
def settings(redis_url: str) -> Settings:
    return Settings(redis_url=redis_url, api_key=KEY, redis_timeout_s=10.0)


@pytest.fixture
def upstream() -> FakeUpstream:
    return FakeUpstream()


@fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    store = Store.from_url(redis_url)
    yield store
    await store.close()


@fixture
async def service_url(settings: Settings, upstream: FakeUpstream) -> AsyncIterator[str]:
    async with serving(settings, upstream) as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    program = find_chromium()
    if program is None:
        if IS_REQUIRED:
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    async with browsing(program) as browser:
        yield browser


@fixture
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    async with await browser.new_context(timezone_id="Europe/Rome", locale="en-GB") as context:
        yield context


@fixture
async def page(context: BrowserContext) -> AsyncIterator[Page]:
    """A page that fails the test if the browser has anything to complain of."""
    page = await context.new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    assert complaints == []
