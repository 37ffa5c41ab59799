"""The API documentation page in a real browser."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


async def test_it_shows_every_operation_and_asks_no_other_host(service_url: str, page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(f"{service_url}/docs")

    await expect(page.locator(".opblock")).to_have_count(18)
    assert [url for url in asked if not url.startswith((service_url, "data:"))] == []


async def test_a_request_can_be_tried_out(service_url: str, page: Page) -> None:
    await page.goto(f"{service_url}/docs#/state/gate")
    gate = page.locator("#operations-state-gate")
    await gate.get_by_role("button", name="Try it out").click()
    await gate.get_by_role("button", name="Execute").click()
    await expect(gate.locator(".live-responses-table .response-col_status").last).to_contain_text("200")
