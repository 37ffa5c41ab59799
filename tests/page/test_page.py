"""The status page in a real browser."""

from __future__ import annotations

import time
from dataclasses import replace

import httpx
import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, expect

from openrouter_guard.rules.codec import iso
from openrouter_guard.settings import FurtherScope, Settings
from openrouter_guard.store import Store
from tests.page.browsing import outage, serving
from tests.service.apps import KEY, FakeUpstream

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

HEADLINE = "#headline"
PAUSED = "Calls are paused: OpenRouter is not available"


async def answers_after_s(page: Page) -> float:
    began_at = time.monotonic()
    await page.evaluate("1")
    return time.monotonic() - began_at


async def test_an_outage_shows_within_two_seconds_without_a_reload(
    service_url: str, page: Page, store: Store, settings: Settings
) -> None:
    await page.goto(service_url)
    await expect(page.locator(HEADLINE)).to_have_text("Calls go through")
    await expect(page.locator("#liveness")).to_have_text("Live")
    await page.evaluate("window.same = true")

    usual_s = max([await answers_after_s(page) for _ in range(10)])
    began_at = time.monotonic()
    await outage(store, settings)
    await expect(page.locator(HEADLINE)).to_have_text(PAUSED)

    # On a machine that does much else, the browser is slow too.
    assert time.monotonic() - began_at < 2 + 20 * usual_s
    assert await page.evaluate("window.same"), "the page was loaded anew"
    await expect(page).to_have_title(f"{PAUSED} · OpenRouter Guard")
    await expect(page.get_by_text("Next trial call")).to_be_visible()
    await expect(page.locator("#board table").last).to_contain_text("closed")


async def test_without_events_the_page_looks_for_itself(
    service_url: str, page: Page, store: Store, settings: Settings
) -> None:
    await page.route("**/events*", lambda route: route.fulfill(status=204))
    await page.goto(service_url)
    await expect(page.locator("#liveness")).to_have_text("Looking every 2 seconds")

    await outage(store, settings)

    await expect(page.locator(HEADLINE)).to_have_text(PAUSED)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("is_open", [False, True], ids=["closed", "open"])
async def test_axe_finds_nothing_serious(
    service_url: str, page: Page, store: Store, settings: Settings, scheme: str, is_open: bool
) -> None:
    if is_open:
        await outage(store, settings)
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    await page.goto(service_url)
    await expect(page.locator("#liveness")).to_have_text("Live")

    found = await Axe().run(page)

    serious = [(v["id"], v["nodes"][0]["html"]) for v in found.response["violations"] if v["impact"] != "minor"]
    assert serious == []


async def test_on_a_phone_nothing_sticks_out_sideways(service_url: str, page: Page) -> None:
    await page.set_viewport_size({"width": 360, "height": 740})
    await page.goto(service_url)
    await expect(page.locator("#liveness")).to_have_text("Live")

    assert await page.evaluate("document.documentElement.scrollWidth") <= 360


async def test_the_keyboard_reaches_the_state_first(service_url: str, page: Page) -> None:
    await page.goto(service_url)

    await page.keyboard.press("Tab")

    await expect(page.get_by_role("link", name="To the current state")).to_be_focused()


async def test_an_open_table_stays_open_when_the_page_is_renewed(
    service_url: str, page: Page, store: Store, settings: Settings
) -> None:
    await page.goto(service_url)
    await page.get_by_text("As a table").click()

    await outage(store, settings)
    await expect(page.locator(HEADLINE)).to_have_text(PAUSED)

    await expect(page.get_by_role("columnheader", name="Error rate")).to_be_visible()


async def test_what_a_worker_calls_itself_is_shown_as_text(service_url: str, page: Page, store: Store) -> None:
    await store.heartbeat("<img src=x onerror=alert(1)>", {"version": "1", "last_seen": iso(time.time())})

    await page.goto(service_url)

    await expect(page.get_by_text("<img src=x")).to_be_visible()


async def test_what_operators_have_paused_is_shown_by_cluster(service_url: str, page: Page, store: Store) -> None:
    about = {"last_seen": iso(time.time()), "resource": "team-a/default"}
    await store.tell_paused("prod", {**about, "workloads": ["Deployment team-a/chat"], "paused": 3})
    await store.tell_paused("test", {**about, "workloads": [], "paused": 0})

    await page.goto(service_url)

    rows = page.get_by_role("region", name="Table of what is paused").locator("tbody tr")
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("prod")
    await expect(rows).to_contain_text("Deployment team-a/chat and 2 more")


async def test_one_page_leads_to_every_scope_that_the_service_looks_after(
    settings: Settings, upstream: FakeUpstream, page: Page, redis_url: str
) -> None:
    both = replace(settings, further=(FurtherScope("team-a", KEY),))
    other = Store.from_url(redis_url, "team-a")
    async with serving(both, upstream) as url:
        await page.goto(url)
        await expect(page.get_by_role("link", name="default")).to_have_attribute("aria-current", "page")
        await page.get_by_role("link", name="team-a").click()
        await expect(page.get_by_text("Scope team-a")).to_be_visible()
        await expect(page.locator("#liveness")).to_have_text("Live")

        await outage(other, both)

        await expect(page.locator(HEADLINE)).to_have_text(PAUSED)
        await page.get_by_role("link", name="default").click()
        await expect(page.locator(HEADLINE)).to_have_text("Calls go through")
        await expect(page.get_by_role("navigation")).to_contain_text(f"team-a: {PAUSED}")
        await page.close()
    await other.close()


async def test_without_redis_the_page_says_so(upstream: FakeUpstream, browser: Browser) -> None:
    away = Settings(redis_url="redis://127.0.0.1:1/0", api_key=KEY)
    page = await browser.new_page()
    async with serving(replace(away, redis_timeout_s=0.1), upstream) as url:
        await page.goto(url)

        await expect(page.locator(HEADLINE)).to_have_text("Nothing is known yet")
        await expect(page.get_by_text("Redis cannot be read. This is the last known state")).to_be_visible()
        await expect(page.get_by_text("Not known: Redis cannot be read.").first).to_be_visible()
        await page.close()


async def test_the_page_works_without_its_script(service_url: str, browser: Browser) -> None:
    async with await browser.new_context(java_script_enabled=False) as context:
        page = await context.new_page()
        await page.goto(service_url)

        await expect(page.locator(HEADLINE)).to_have_text("Calls go through")
        await expect(page.locator("time").first).to_contain_text("UTC")


async def test_nothing_is_loaded_from_another_host(service_url: str, page: Page) -> None:
    hosts = set()
    page.on("request", lambda request: hosts.add(httpx.URL(request.url).netloc.decode()))

    await page.goto(service_url)
    await expect(page.locator("#liveness")).to_have_text("Live")

    assert hosts == {httpx.URL(service_url).netloc.decode()}


async def test_the_key_is_nowhere_in_the_page(service_url: str) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.get(service_url)

    assert answer.status_code == 200
    assert KEY not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
