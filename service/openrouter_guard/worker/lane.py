"""This process' share of a ramp: which of its calls may begin now, and when the next ones may.

It asks Redis nothing.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from openrouter_guard.rules.ramp import Ramp

__all__ = ["Lane"]

LEAST_S = 0.01
"""The shortest wait that a caller is given."""


class Lane:
    """Distributes the starts of one process: each process gets an equal share of all.

    Args:
        lot: Draws a number from 0 to 1, which orders the processes.

    Attributes:
        held: Permits of the fleet taken for waiting tasks, and not used by a call yet.
    """

    def __init__(self, lot: Callable[[], float] = random.random) -> None:
        self._lot = lot
        self._ramp: Ramp | None = None
        self._left = 0.0
        self._at = 0.0
        self._promised: deque[float] = deque()
        self._granted = 0
        self._lock = threading.RLock()
        self.held: set[str] = set()

    def enter(self, ramp: Ramp, now: float, *, queues: bool = False) -> float:
        """Begin a call now, if it is its turn.

        Args:
            ramp: The current ramp.
            now: The time, by Redis' clock.
            queues: Whether the caller waits here and is asked again first. Otherwise it gets a time that no other
                caller got.

        Returns:
            0 if it may begin; else the seconds until it may.
        """
        with self._lock:
            self._follow(ramp, now)
            if self._left >= 1:
                self._left -= 1
                self._granted += queues
                return 0.0
            if self._granted and not queues:
                # Of a waiting task whose call another task makes.
                self._granted -= 1
                return 0.0
            while self._promised and self._promised[0] <= now:
                self._promised.popleft()
            missing = 1 - self._left + (0 if queues else len(self._promised))
            starts_at = max(ramp.begins_at(missing * ramp.processes, now), now + LEAST_S)
            if not queues:
                self._promised.append(starts_at)
            return starts_at - now

    def use(self) -> None:
        """Begin a call with a start taken for a waiting task."""
        with self._lock:
            self._granted = max(self._granted - 1, 0)

    def claim(self, permit: str) -> bool:
        """Use a :attr:`held` permit for the coming call; False if it is gone."""
        with suppress(KeyError):
            self.held.remove(permit)
            return True
        return False

    def claim_any(self) -> str:
        """Use a held permit for a task that makes the call of a waiting one; empty if there is none."""
        return next((permit for permit in tuple(self.held) if self.claim(permit)), "")

    def _follow(self, ramp: Ramp, now: float) -> None:
        known = self._ramp
        self._ramp = ramp
        if known is None or known.starts_at != ramp.starts_at or known.is_held is not ramp.is_held:
            self._left = self._lot() + ramp.begun(now) / ramp.processes
            self._promised.clear()
            self._granted = 0
        elif now > self._at:
            self._left += (ramp.begun(now) - ramp.begun(self._at)) / ramp.processes
        else:
            return
        self._at = now
