"""All connections of this process: how many there may be, and which one goes when there are too many.

Nobody has to send a token to open a connection. So a newcomer is always let in, and the client that has kept us
waiting the longest makes room for it: a probe of Kubernetes gets through whoever else is there.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from typing import TYPE_CHECKING

from uvicorn.server import ServerState

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["CONNECTIONS_MAX", "HELD_MAX_BYTES", "ConnectionLimits"]

logger = logging.getLogger(__name__)

CONNECTIONS_MAX = 1000
RESERVE = 64
"""So many more are let in, for the probes alone, while all others are being answered."""
HELD_MAX_BYTES = 4 * 1024 * 1024
"""What all requests that are not answered yet may take together."""
A_ROUND = 4
"""So many requests that came behind others begin in one round of the event loop."""
STUCK_MAX = 64
"""So many clients at a time may leave their answers untaken."""
SAY_AGAIN_S = 60.0


class ConnectionLimits(ServerState):
    """The connections, by what they do.

    Attributes:
        waiting: Those whose client has the next word, the longest waiting first.
        answering: Those with a request that is whole and not answered yet.
        stuck: Those whose client does not take its answer, the oldest first.
        held_bytes: What requests take that are not answered yet.
    """

    def __init__(self, connections_max: int = CONNECTIONS_MAX) -> None:
        super().__init__()
        self.waiting: dict[Connection, None] = {}
        self.answering: set[Connection] = set()
        self.stuck: dict[Connection, None] = {}
        self.held_bytes = 0
        self._max = connections_max
        self._cut_off: Counter[str] = Counter()
        self._said_s = float("-inf")
        self._behind: deque[Connection] = deque()

    @property
    def is_full(self) -> bool:
        """Whether as many are being answered as may: more than that get no answer, but for the probes."""
        return len(self.answering) >= self._max

    def enter(self, newcomer: Connection) -> None:
        """Let a connection in; the one that has waited longest goes, where there are too many."""
        self.waiting[newcomer] = None
        excess = len(self.waiting) + len(self.answering) - self._max
        if excess <= 0:
            return
        oldest = next(iter(self.waiting))
        if oldest is not newcomer:
            oldest.cut_off("were idle or slow when others came")
        elif excess > RESERVE:
            newcomer.cut_off("came when all others were being answered")

    def leave(self, gone: Connection) -> None:
        self.waiting.pop(gone, None)
        self.answering.discard(gone)
        self.stuck.pop(gone, None)

    def hold(self, more_bytes: int) -> None:
        """Note that requests take so much more; over the bound, the one that takes most goes."""
        self.held_bytes += more_bytes
        if self.held_bytes > HELD_MAX_BYTES:
            everybody = (*self.waiting, *self.answering)
            max(everybody, key=lambda each: each.held_bytes).cut_off("sent large requests while many others did")

    def stick(self, client: Connection) -> None:
        """Note that a client does not take its answer."""
        self.stuck[client] = None
        if len(self.stuck) > STUCK_MAX:
            next(iter(self.stuck)).cut_off("did not take their answers")

    def queue(self, client: Connection) -> None:
        """Let a connection go on with its next request, a few in each round: first those who wait for their first."""
        if not self._behind:
            client.loop.call_soon(self._go_on)
        self._behind.append(client)

    def _go_on(self) -> None:
        for _ in range(min(A_ROUND, len(self._behind))):
            self._behind.popleft().go_on()
        if self._behind:
            self._behind[0].loop.call_soon(self._go_on)

    def look(self, now_s: float) -> None:
        """Part with those that let their time pass; to be called every second, with the loop's time."""
        for each in (*self.waiting, *self.answering):
            each.look(now_s)
        if self._cut_off and now_s - self._said_s >= SAY_AGAIN_S:
            self._said_s = now_s
            found = ", ".join(f"{count} {why}" for why, count in self._cut_off.most_common())
            self._cut_off.clear()
            logger.warning("clients were cut off or refused: %s", found)

    def hurry(self, now_s: float, stopping_s: float) -> None:
        """Part with those that have kept us waiting since ``stopping_s``, when the process was told to stop."""
        for each in (*self.waiting, *self.answering):
            each.hurry(now_s, stopping_s)

    def note(self, why: str) -> None:
        """Remember, for the log, that a client was cut off; *why* is one of a few phrases."""
        self._cut_off[why] += 1
