"""Log lines on stderr, one a line; the level is ``OPENROUTER_GUARD_LOG_LEVEL`` (default INFO)."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from openrouter_guard.errors import ConfigurationError

__all__ = ["configure"]

_VARIABLE = "OPENROUTER_GUARD_LOG_LEVEL"


def configure(environ: Mapping[str, str]) -> None:
    """Set up logging for a process of ours.

    Raises:
        ConfigurationError: If the level is none of logging's.
    """
    level = environ.get(_VARIABLE, "INFO").upper()
    if level not in logging.getLevelNamesMapping():
        raise ConfigurationError(f"{_VARIABLE} is {level!r}: write DEBUG, INFO, WARNING or ERROR")
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)-7s %(name)s %(message)s")
    # One line per request to the upstream is noise, and holds its address.
    logging.getLogger("httpx").setLevel(logging.WARNING)
