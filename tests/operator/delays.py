"""A watch whose events arrive late, as from an API server whose cache lags behind."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp

__all__ = ["EVENT_DELAYED", "LIST_OUTDATED", "STATE_SKIPPED", "delayed"]

EVENT_DELAYED = "event delayed"
LIST_OUTDATED = "list outdated"
STATE_SKIPPED = "state skipped"


async def delayed(
    answer: aiohttp.ClientResponse, delay_s: float, *, is_coalesced: bool, faults: Counter[str]
) -> AsyncIterator[bytes]:
    """Yield the lines of a watch, each after *delay_s*; if coalesced, only the newest of each object by then."""
    loop, lines = asyncio.get_running_loop(), asyncio.Queue[tuple[float, bytes]]()

    async def read() -> None:
        rest = b""
        async for chunk in answer.content.iter_any():
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                lines.put_nowait((loop.time() + delay_s, line))
        lines.put_nowait((0.0, b""))

    reader = asyncio.create_task(read())
    try:
        while not reader.done() or not lines.empty():
            due_at, line = await lines.get()
            await asyncio.sleep(max(due_at - loop.time(), 0.0))
            found = [line]
            while is_coalesced and not lines.empty():
                found.append(lines.get_nowait()[1])
            found = [each for each in found if each]
            shown = _newest(found)
            faults[EVENT_DELAYED] += len(shown)
            faults[STATE_SKIPPED] += len(found) - len(shown)
            yield b"".join(each + b"\n" for each in shown)
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


def _newest(lines: Sequence[bytes]) -> list[bytes]:
    """Of each object the last event; one that came and went was never there."""
    newest: dict[str, dict[str, Any]] = {}
    for event in map(json.loads, lines):
        key = event["object"].get("metadata", {}).get("uid", event["type"])
        before = newest.pop(key, None)
        is_new = before is not None and before["type"] == "ADDED"
        if is_new and event["type"] == "DELETED":
            continue
        newest[key] = event | {"type": "ADDED"} if is_new else event
    return [json.dumps(event).encode() for event in newest.values()]
