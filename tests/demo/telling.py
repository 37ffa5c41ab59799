"""The demo's output on the terminal. Several threads write, so each block is written at once."""

from __future__ import annotations

import sys
import textwrap
import time

__all__ = ["chapter", "quote", "say", "timed"]

_WIDTH = 100
_begun_s = time.monotonic()


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def timed(text: str) -> None:
    """A line with the seconds since the beginning."""
    say(f"{time.monotonic() - _begun_s:6.1f} s  {text}")


def chapter(title: str, why: str, *quotes: str) -> None:
    """A heading, below it what happens and why, and what commands print."""
    say("\n\n".join((f"\n== {title} ==\n{textwrap.fill(why, _WIDTH)}", *quotes)))


def quote(command: str, output: str) -> str:
    """What a command prints, as in a terminal."""
    return f"$ {command}\n{output.rstrip()}"
