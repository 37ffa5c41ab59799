"""The two clocks, as types that mypy keeps apart; both are plain floats as the program runs.

:data:`ServerTime`     a moment of Redis' clock, in Unix seconds: all processes share it, and what is stored is of it
:data:`MonotonicTime`  a moment of this process' own clock, in seconds: it never jumps, and means nothing to others
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NewType, cast

__all__ = ["UNKNOWN", "MonotonicTime", "ServerTime", "monotonic"]

ServerTime = NewType("ServerTime", float)
MonotonicTime = NewType("MonotonicTime", float)
UNKNOWN = MonotonicTime(0.0)
"""Stands for a moment that nobody noted."""

monotonic = cast("Callable[[], MonotonicTime]", time.monotonic)
"""The present moment of this process' clock; the function itself, so that a call does not get slower by its type."""
