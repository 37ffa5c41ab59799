"""Runs a command that ends with its parent, even after a ``kill -9``.

``python -m openrouter_guard.devtools.die_with_parent PARENT COMMAND…`` asks the kernel for it and becomes the
command, so there is no process in between. Linux only, like the product.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

__all__ = ["die_with_parent"]

_PR_SET_PDEATHSIG = 1
"""From ``linux/prctl.h``."""


def die_with_parent(command: Sequence[str]) -> list[str]:
    """Return the command line that runs *command* in this way.

    It ends with the thread that starts it, so start it from a lasting thread.
    """
    return [sys.executable, "-m", __name__, str(os.getpid()), *command]


def main(parent: int, command: Sequence[str]) -> None:
    """Become the command."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(f"process {parent} has ended: {command[0]} is not started")
    os.execv(command[0], list(command))  # noqa: S606  that is its purpose


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
