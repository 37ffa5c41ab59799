"""Logs one line when a problem starts and one when it ends, however many requests notice it.

A change of its cause is logged too. The worker library logs in somebody else's process, where a handler or a filter
may raise anything: that is no reason to stop.
"""

from __future__ import annotations

import logging
import re
from contextlib import suppress

from .errors import StoreUnavailable

__all__ = ["LogOnce"]

logger = logging.getLogger(__name__)


CAUSES_MOST = 8
_NUMBERS = re.compile(r"[0-9]+")
_WORDS_MOST = 200


class LogOnce:
    """The state of one thing that may fail.

    Args:
        bad: The message when it fails.
        good: The message when it works again; empty: none.
        scope: Its scope, if a process may have several.

    Attributes:
        error: The present problem; None while it works.
    """

    def __init__(self, bad: str, good: str, *, scope: str = "") -> None:
        self.error: Exception | None = None
        self._bad = bad
        self._good = good
        self._where = f" (scope {scope})" if scope else ""
        self._told: set[tuple[str, str]] = set()

    def failed(self, error: Exception) -> None:
        self.error = error
        cause = _cause(error)
        # A cause that changes all the time is limited too.
        if cause not in self._told and len(self._told) < CAUSES_MOST:
            self._told.add(cause)
            with suppress(Exception):
                logger.warning("%s%s: %s", self._bad, self._where, error)

    def worked(self) -> None:
        if self.error is not None and self._good:
            with suppress(Exception):
                logger.info("%s%s", self._good, self._where)
        self.error = None
        self._told.clear()


def _cause(error: Exception) -> tuple[str, str]:
    """Compares causes: a server that is away has many messages, and other numbers are not another cause."""
    words = "" if isinstance(error, StoreUnavailable) else _NUMBERS.sub("#", str(error))
    return type(error).__name__, words[:_WORDS_MOST]
