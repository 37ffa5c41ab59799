"""One log line when something goes wrong and one when it is over, however many requests notice.

Where it goes wrong for another reason meanwhile, that is said too.
"""

from __future__ import annotations

import logging
import re

from .errors import StoreUnavailable

__all__ = ["LogOnce"]

logger = logging.getLogger(__name__)


CAUSES_MOST = 8
_NUMBERS = re.compile(r"[0-9]+")
_WORDS_MOST = 200


class LogOnce:
    """Whether one thing works.

    Args:
        bad: What to say when it does not.
        good: What to say when it does again; empty: nothing.
        scope: Whose it is, where a process may have several.

    Attributes:
        error: Why it does not; None while it does.
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
        # What changes its cause all the time is bounded too.
        if cause not in self._told and len(self._told) < CAUSES_MOST:
            self._told.add(cause)
            logger.warning("%s%s: %s", self._bad, self._where, error)

    def worked(self) -> None:
        if self.error is not None and self._good:
            logger.info("%s%s", self._good, self._where)
        self.error = None
        self._told.clear()


def _cause(error: Exception) -> tuple[str, str]:
    """What tells causes apart: a server that is away is so in many words, and numbers are no other cause."""
    words = "" if isinstance(error, StoreUnavailable) else _NUMBERS.sub("#", str(error))
    return type(error).__name__, words[:_WORDS_MOST]
