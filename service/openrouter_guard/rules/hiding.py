"""Keys of OpenRouter in texts that somebody else wrote: they are never stored, shown or logged."""

from __future__ import annotations

import re

__all__ = ["ANY_KEY", "HIDDEN", "without_keys"]

ANY_KEY = re.compile(r"sk-or-[\w-]+")
HIDDEN = "[key]"


def without_keys(text: str) -> str:
    return ANY_KEY.sub(HIDDEN, text)
