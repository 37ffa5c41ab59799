"""The locked dependencies of one or more parts, for a software bill of materials."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .versions import ROOT

__all__ = ["requirements_of"]


def requirements_of(locks: Iterable[str]) -> str:
    """Return the requirements of these locks, each one once, with its version, marker and hashes."""
    texts = ((ROOT / "requirements" / f"{lock}.txt").read_text() for lock in locks)
    pins = (pin for text in texts for pin in re.findall(r"^\S.*(?:\n {4}--hash.*)*", text, re.MULTILINE))
    return "".join(f"{pin}\n" for pin in dict.fromkeys(pins) if not pin.startswith("#"))
