"""Waiting for the world to be as expected, instead of sleeping and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["until"]


def until(holds: Callable[[], object], *, seconds: float = 30.0) -> None:
    """Return as soon as *holds* is true.

    Raises:
        AssertionError: If it is not in that time.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not true within {seconds:g} s")
        time.sleep(0.01)
