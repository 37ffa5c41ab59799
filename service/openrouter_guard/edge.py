"""One log line when something goes wrong and one when it is over, however many requests notice."""

from __future__ import annotations

import logging

__all__ = ["Edge"]

logger = logging.getLogger(__name__)


class Edge:
    """Whether one thing works.

    Attributes:
        error: Why it does not; None while it does.
    """

    def __init__(self, bad: str, good: str) -> None:
        self.error: Exception | None = None
        self._bad = bad
        self._good = good

    def failed(self, error: Exception) -> None:
        if self.error is None:
            logger.warning("%s: %s", self._bad, error)
        self.error = error

    def worked(self) -> None:
        if self.error is not None:
            logger.info("%s", self._good)
        self.error = None
