"""How long a replica of the health service takes to its first answer, and its memory.

Beside it an app with one route, which is what FastAPI and the server take by themselves.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from openrouter_guard.testing import SimulatedOpenRouter, running
from tests.ports import free_port

from .existing_status import PATH
from .load import closed_loop, request
from .measuring import Effort, Row
from .serving import Served
from .valkey import embedded_valkey

__all__ = ["run"]

_WITHIN_S = 60.0
_RETRY_S = 0.005
_MIB = 2**20
_ONE_ROUTE = """
import sys, fastapi, uvicorn
app = fastapi.FastAPI()
app.get({path!r})(lambda: fastapi.Response(b"1"))
uvicorn.run(app, port={port}, log_config=None, access_log=False)
"""


@dataclass(frozen=True, slots=True)
class Started:
    """How long it took, and the memory after the first answer and after many, in MiB."""

    seconds: float
    first_mib: float
    later_mib: float


def run(effort: Effort) -> Iterator[Row]:
    ours, theirs = [], []
    with embedded_valkey() as url, running(SimulatedOpenRouter()) as base_url:
        environ = {"REDIS_URL": url, "OPENROUTER_API_KEY": "sk-or-v1-bench", "OPENROUTER_BASE_URL": base_url}
        for _ in range(effort.serving_samples):
            port = free_port()
            ours.append(
                _started(port, effort.serving_s, environ, "-m", "openrouter_guard", "serve", f"--port={port}")
            )
            port = free_port()
            theirs.append(_started(port, effort.serving_s, {}, "-c", _ONE_ROUTE.format(path=PATH, port=port)))
    for name, what, unit in (
        ("to the first status", "seconds", "s"),
        ("memory after it", "first_mib", "MiB"),
        ("memory after many", "later_mib", "MiB"),
    ):
        values = [statistics.median(getattr(each, what) for each in runs) for runs in (ours, theirs)]
        yield Row(f"a replica, beside one route of FastAPI: {name}", values[0], unit, values[1])


def _started(port: int, asked_s: float, environ: Mapping[str, str], *arguments: str) -> Started:
    began_at = time.perf_counter()
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        [sys.executable, *arguments], env={**os.environ, **environ}, stdout=quiet, stderr=quiet
    )
    try:
        asyncio.run(_answer(port, began_at + _WITHIN_S))
        took_s, served = time.perf_counter() - began_at, Served(port, process.pid)
        first = served.memory
        asyncio.run(closed_loop([port], [request(PATH)], 16, asked_s))
        return Started(took_s, first / _MIB, served.memory / _MIB)
    finally:
        process.terminate()
        process.wait()


async def _answer(port: int, until: float) -> None:
    """Ask until there is an answer.

    Raises:
        TimeoutError: If there is none in time.
    """
    while time.perf_counter() < until:
        with suppress(OSError):
            await closed_loop([port], [request(PATH)], 1, seconds=0.0)
            return
        await asyncio.sleep(_RETRY_S)
    raise TimeoutError(f"nothing answered on port {port}")
