"""Units of time, in seconds."""

from __future__ import annotations

__all__ = ["DAY_S", "HOUR_S", "MINUTE_S"]

MINUTE_S = 60
HOUR_S = 3_600
DAY_S = 86_400
