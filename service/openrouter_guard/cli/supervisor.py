"""Runs several processes as one: prefixes their output with their names, and ends all of them together."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from openrouter_guard.devtools.die_with_parent import die_with_parent

__all__ = ["Child", "supervise"]

STOP_S = 6.0
"""How long a child may take to end before it is killed."""


@dataclass(frozen=True, slots=True)
class Child:
    """One of our commands (``python -m`` with these arguments), and additions to its environment."""

    name: str
    words: Sequence[str]
    environ: Mapping[str, str] = field(default_factory=dict)


async def supervise(children: Sequence[Child]) -> int:
    """Run until a signal (0) or until one of them ends by itself (its exit status, at least 1)."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    # A closed terminal (SIGHUP) reaches only this process: without it, the children would run for ever.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    running = [(child, await _start(child)) for child in children]
    relays = [asyncio.create_task(_relay(child.name, process)) for child, process in running]
    ends = {asyncio.create_task(process.wait()): child for child, process in running}
    stopped = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([stopped, *ends], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    for _, process in reversed(running):
        await _stop(process)
    await asyncio.gather(*relays)
    ended = next((task for task in done if task in ends), None)
    if ended is None:
        return 0
    print(f"{ends[ended].name} ended with status {ended.result()}; stopped the others", file=sys.stderr)
    return abs(int(ended.result() or 0)) or 1


async def _start(child: Child) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        # If this process is killed, it cannot stop the children: then the kernel does.
        *die_with_parent([sys.executable, "-m", *child.words]),
        env=os.environ | dict(child.environ),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        # Ctrl-C in a terminal reaches the whole group: this process stops the children in order.
        start_new_session=True,
    )


async def _relay(name: str, process: asyncio.subprocess.Process) -> None:
    if process.stdout is None:
        return
    async for line in process.stdout:
        print(f"{name:>9} | {line.decode(errors='replace').rstrip()}", flush=True)


async def _stop(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
