"""How often a process reads the shared state."""

from __future__ import annotations

import asyncio
import random

__all__ = ["POLL_S", "RETRY_S", "pause"]

POLL_S = (0.5, 1.0)
"""Time between two reads of the state, in case a push was lost; jittered, so that processes do not read in step."""
RETRY_S = (0.1, 1.0)
"""Time between two tries while Redis does not answer, jittered likewise."""


async def pause(between_s: tuple[float, float]) -> None:
    await asyncio.sleep(random.uniform(*between_s))  # noqa: S311  jitter, not a secret
