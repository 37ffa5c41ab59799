"""Wait for a condition instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["until"]


POLL_S = (0.01, 0.1)
"""The first and the longest wait between two looks: some start a process, of which a busy machine has enough."""


def until(holds: Callable[[], object], *, seconds: float = 60.0) -> None:
    """Return as soon as *holds* is true.

    Raises:
        AssertionError: If it is not in that time.
    """
    deadline, poll_s = time.monotonic() + seconds, POLL_S[0]
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not true within {seconds:g} s")
        time.sleep(poll_s)
        poll_s = min(1.5 * poll_s, POLL_S[1])
