"""Whether to use colour, and how: with rich, if the extra ``[cli]`` is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import IO

from .tables import Block

__all__ = ["draw", "is_wanted"]


def is_wanted(stream: IO[str], environ: Mapping[str, str]) -> bool:
    """Return whether to use colour: on a terminal that knows it, unless ``NO_COLOR`` is set to anything."""
    is_terminal = stream.isatty() and environ.get("TERM") not in (None, "", "dumb")
    return is_terminal and not environ.get("NO_COLOR") and find_spec("rich") is not None


def draw(blocks: Sequence[Block]) -> None:
    """Print the blocks with colour, to fit the terminal.

    Raises:
        ModuleNotFoundError: If rich is not installed.
    """
    # Piped output does without it, and starts faster.
    from .rich_tables import drawn

    drawn(blocks)
