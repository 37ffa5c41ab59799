"""The errors of the demo."""

from __future__ import annotations

__all__ = ["DemoFailed"]


class DemoFailed(Exception):
    """Something did not happen in its time; the message says what, and what the programs say."""
