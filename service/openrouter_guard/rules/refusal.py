"""The answer to a call that may not go."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Refusal"]


class Refusal(NamedTuple):
    """How long a call has to wait in seconds, never negative, and the reason, such as ``service_unavailable``."""

    retry_after_s: float
    reason: str
