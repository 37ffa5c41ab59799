"""Permits in a mixed fleet: workers over HTTP and processes with the library, a hundred of which are killed.

The upstream is the judge: it counts the calls that it has at a time. What it answers says nothing, so the breaker
stays half-open all the while.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from openrouter_guard.rules.breaker import Policy
from openrouter_guard.settings import Settings, Tokens
from openrouter_guard.store import Store
from tests.service.apps import WRITE_TOKEN, FakeUpstream, bearer, eventually, open_breaker
from tests.service.sockets import listening

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

PERMITS, LEASE_S, WAIT_S, NEXT_S = 3, 2.0, 0.2, 0.1
ROUNDS = 100
"""So many workers are killed during their call."""
HTTP_WORKERS, PROCESSES = 8, 2
PREFIX = "/api/v1/openrouter/permits"
ANSWER = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
WORKER = """
import asyncio, os, random, signal, sys, time
import httpx
from openrouter_guard import AsyncGuard, CallNotPermitted

async def work(guard, client):
    while True:
        try:
            async with guard.call() as call:
                call.answered((await client.post(sys.argv[1])).status_code)
        except CallNotPermitted:
            await asyncio.sleep(0.05)

async def main():
    async with AsyncGuard.from_env() as guard, httpx.AsyncClient(timeout=30) as client:
        await asyncio.gather(*(work(guard, client) for _ in range(3)))

# A child is there at once, and is killed a moment later: the parent has imported everything.
while True:
    child = os.fork()
    if not child:
        asyncio.run(main())
    time.sleep(random.uniform(1.0, 2.0))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print("killed", flush=True)
"""


class Upstream:
    """How many calls it has at a time, had at most, and got from whom."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.calls: Counter[str] = Counter()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.now += 1
            self.most = max(self.most, self.now)
            self.calls[head.split(b" ", 2)[1].decode()] += 1
            with suppress(TimeoutError):
                # It ends where its caller is killed.
                await asyncio.wait_for(reader.read(1), random.uniform(0.1, 0.4))
            self.now -= 1
            writer.write(ANSWER)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def judging() -> AsyncIterator[tuple[Upstream, str]]:
    upstream = Upstream()
    server = await asyncio.start_server(upstream, "127.0.0.1", 0)
    try:
        yield upstream, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@asynccontextmanager
async def in_library(folder: Path, url: str, redis_url: str, killed: Counter[str]) -> AsyncIterator[None]:
    """Processes with the library whose children are killed again and again."""
    (folder / "worker.py").write_text(WORKER)
    ours = {"PERMIT_LEASE_SECONDS": LEASE_S, "PERMITS": PERMITS, "NEXT_TRIAL_SECONDS": NEXT_S}
    environ = {**os.environ, "REDIS_URL": redis_url} | {f"OPENROUTER_GUARD_{k}": str(v) for k, v in ours.items()}

    async def start() -> asyncio.subprocess.Process:
        command = (sys.executable, str(folder / "worker.py"), f"{url}/library")
        return await asyncio.create_subprocess_exec(
            *command, env=environ, stdout=asyncio.subprocess.PIPE, start_new_session=True
        )

    async def count(process: asyncio.subprocess.Process) -> None:
        assert process.stdout
        while await process.stdout.readline():
            killed["library"] += 1

    processes = [await start() for _ in range(PROCESSES)]
    counting = [asyncio.create_task(count(process)) for process in processes]
    try:
        yield
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        await asyncio.gather(*counting)


async def over_http(service: httpx.AsyncClient, url: str, name: str, killed: Counter[str]) -> None:
    """Every fourth one is killed during its call, and another one takes its place."""
    check_availability, headers = random.Random(name), bearer(WRITE_TOKEN)
    while True:
        answer = await service.post(PREFIX, json={"worker_id": name}, headers=headers)
        if answer.status_code == 201:
            permit = answer.json()["permit"]
            async with httpx.AsyncClient(timeout=30) as client:
                if check_availability.random() < 0.25:
                    with suppress(httpx.TimeoutException):
                        await client.post(f"{url}/http", timeout=0.05)
                    killed["http"] += 1
                    continue
                status = (await client.post(f"{url}/http")).status_code
            body = {"success": False, "status_code": status}
            await service.request("DELETE", f"{PREFIX}/{permit}", json=body, headers=headers)
        await asyncio.sleep(check_availability.uniform(0, 0.05))


async def test_no_more_than_so_many_calls_are_out_whoever_is_killed(
    settings: Settings, upstream: FakeUpstream, store: Store, redis_url: str, tmp_path: Path
) -> None:
    policy = Policy(first_wait_s=WAIT_S, permit_lease_s=LEASE_S, permits=PERMITS, next_trial_s=NEXT_S)
    ours = replace(settings, api_key="", tokens=Tokens(write=WRITE_TOKEN), policy=policy)
    killed: Counter[str] = Counter()
    async with AsyncExitStack() as stack:
        judge, url = await stack.enter_async_context(judging())
        served = await stack.enter_async_context(listening(ours, upstream))
        await open_breaker(store, ours)
        await stack.enter_async_context(in_library(tmp_path, url, redis_url, killed))
        workers = [
            asyncio.create_task(over_http(served.client, url, f"http-{number}", killed))
            for number in range(HTTP_WORKERS)
        ]
        try:
            await eventually(lambda: killed.total() >= ROUNDS or any(each.done() for each in workers), seconds=240)
            assert not any(each.done() for each in workers)
        finally:
            for each in workers:
                each.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
    print(f"calls {dict(judge.calls)}, killed {dict(killed)}, at a time {judge.most}")
    assert judge.most == PERMITS
    assert min(killed["http"], killed["library"]) >= 5
    assert min(judge.calls["/http"], judge.calls["/library"]) >= 5
