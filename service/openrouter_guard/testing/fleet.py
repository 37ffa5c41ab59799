"""A few simulated workers that call OpenRouter all the time, each with a guard of its own.

``python -m openrouter_guard.testing.fleet`` runs them until a signal; the settings come from the environment.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

import httpx

from openrouter_guard.errors import CallNotPermitted
from openrouter_guard.settings import Settings
from openrouter_guard.worker import AsyncGuard

__all__ = ["main", "work"]

WORKERS = 3
PAUSE_S = (0.1, 0.4)
_REQUEST = {"model": "simulated/model", "messages": [{"role": "user", "content": "Say something."}]}


async def work(settings: Settings, name: str, client: httpx.AsyncClient) -> None:
    """Call, wait a moment, call again; print when calls are refused and when they go through again."""
    was_refused = False
    async with AsyncGuard(replace(settings, worker_id=name)) as guard:
        while True:
            try:
                async with guard.call():
                    answer = await client.post("/chat/completions", json=_REQUEST)
                    answer.raise_for_status()
                if was_refused:
                    print(f"{name}: calls go through again", flush=True)
                was_refused = False
            except CallNotPermitted as refusal:
                if not was_refused:
                    print(f"{name}: {refusal}", flush=True)
                was_refused = True
            except httpx.HTTPError as error:
                print(f"{name}: {type(error).__name__}", flush=True)
            await asyncio.sleep(random.uniform(*PAUSE_S))


async def _run(settings: Settings, count: int) -> None:
    headers = {"Authorization": f"Bearer {settings.api_key}"}
    client = httpx.AsyncClient(base_url=settings.base_url, headers=headers, timeout=10)
    async with client, asyncio.TaskGroup() as fleet:
        await _until_reachable(client)
        tasks = [fleet.create_task(work(settings, f"worker-{n}", client)) for n in range(1, count + 1)]
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, _cancel, tasks)


async def _until_reachable(client: httpx.AsyncClient) -> None:
    """Started together with the upstream, a worker would take its first moment for an outage."""
    while True:
        try:
            await client.get("/key")
        except httpx.ConnectError:
            await asyncio.sleep(PAUSE_S[0])
        else:
            return


def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()


def main(environ: Mapping[str, str]) -> None:
    with suppress(asyncio.CancelledError):
        asyncio.run(_run(Settings.from_env(environ), WORKERS))


if __name__ == "__main__":
    main(os.environ)
