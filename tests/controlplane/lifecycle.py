"""Programs that run for as long as a context lasts, and end with this process at the latest."""

from __future__ import annotations

import atexit
from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import Self

__all__ = ["Running"]


class Running(ABC):
    """The base of the control plane and of the node: a subclass starts in :meth:`_begin`, and says how to end it."""

    def __init__(self) -> None:
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        atexit.register(self.stop)
        try:
            self._begin()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End everything, in reverse, and leave nothing behind; may be called twice."""
        self._cleanup.close()
        atexit.unregister(self.stop)

    @abstractmethod
    def _begin(self) -> None: ...
