"""All connections of this process: limits their number, and chooses the one to close when there are too many.

No token is needed to open a connection. So a new client is always let in, and the client that has kept us waiting the
longest is closed for it: a probe of Kubernetes gets through in any case.
"""

from __future__ import annotations

import logging
from asyncio import Task
from collections import Counter, deque
from typing import TYPE_CHECKING

from uvicorn.server import ServerState

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["ARRIVING_MAX", "CONNECTIONS_MAX", "HELD_MAX_BYTES", "ConnectionLimits"]

logger = logging.getLogger(__name__)

CONNECTIONS_MAX = 1000
RESERVE = 64
"""This many more are let in, only for the probes, while all others are being answered."""
ARRIVING_MAX = 256
"""And this many whose connection is not made yet. Only TLS takes a while for that."""
HELD_MAX_BYTES = 4 * 1024 * 1024
"""Memory of all unanswered requests together."""
A_ROUND = 4
"""Number of queued requests that begin in one round of the event loop."""
STUCK_MAX = 64
"""Number of clients at a time that may leave their answers unread."""
SAY_AGAIN_S = 60.0


class ConnectionLimits(ServerState):
    """The connections, by their state.

    Attributes:
        arriving: Connections that are not made yet, the oldest first, and the work on each: their TLS handshake.
        waiting: Connections whose client is to send, the longest waiting first.
        answering: Connections with a complete request that is not answered yet.
        stuck: Connections whose client does not read its answer, the oldest first.
        held_bytes: Memory of unanswered requests.
    """

    def __init__(self, connections_max: int = CONNECTIONS_MAX) -> None:
        super().__init__()
        self.arriving: dict[Connection, Task[None]] = {}
        self.waiting: dict[Connection, None] = {}
        self.answering: set[Connection] = set()
        self.stuck: dict[Connection, None] = {}
        self.held_bytes = 0
        self._max = connections_max
        self._cut_off: Counter[str] = Counter()
        self._said_at = float("-inf")
        self._behind: deque[Connection] = deque()

    @property
    def is_full(self) -> bool:
        """Return whether the maximum of requests is being answered: then only the probes get an answer."""
        return len(self.answering) >= self._max

    def arrive(self, newcomer: Connection, making: Task[None]) -> None:
        """Note an accepted connection until *making* has ended; if there are too many, close the oldest of these."""
        self.arriving[newcomer] = making
        making.add_done_callback(lambda _: self.arriving.pop(newcomer, None))
        if len(self.arriving) > ARRIVING_MAX:
            self._turn_away(next(iter(self.arriving)))
            self.note("had not shaken hands when others came")

    def turn_away(self) -> None:
        """Close all connections that are not made yet."""
        for each in list(self.arriving):
            self._turn_away(each)

    def _turn_away(self, newcomer: Connection) -> None:
        self.arriving.pop(newcomer).cancel()

    def enter(self, newcomer: Connection) -> None:
        """Let a connection in; if there are too many, close the one that has waited longest."""
        self.arriving.pop(newcomer, None)
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
        """Note that requests take this much more memory; over the limit, the largest one is dropped."""
        self.held_bytes += more_bytes
        if self.held_bytes > HELD_MAX_BYTES:
            everybody = (*self.waiting, *self.answering)
            max(everybody, key=lambda each: each.held_bytes).cut_off("sent large requests while many others did")

    def stick(self, client: Connection) -> None:
        """Note that a client does not read its answer."""
        self.stuck[client] = None
        if len(self.stuck) > STUCK_MAX:
            next(iter(self.stuck)).cut_off("did not take their answers")

    def queue(self, client: Connection) -> None:
        """Let a connection go on with its next request, a few in each round.

        Those that wait for their first come first.
        """
        if not self._behind:
            client.loop.call_soon(self._go_on)
        self._behind.append(client)

    def _go_on(self) -> None:
        for _ in range(min(A_ROUND, len(self._behind))):
            self._behind.popleft().go_on()
        if self._behind:
            self._behind[0].loop.call_soon(self._go_on)

    def look(self, now: float) -> None:
        """Disconnect clients that have exceeded their time; call it every second, with the loop's time."""
        for each in (*self.waiting, *self.answering):
            each.look(now)
        if self._cut_off and now - self._said_at >= SAY_AGAIN_S:
            self._said_at = now
            found = ", ".join(f"{count} {why}" for why, count in self._cut_off.most_common())
            self._cut_off.clear()
            logger.warning("clients were cut off or refused: %s", found)

    def hurry(self, now: float, stopping_since: float) -> None:
        """Disconnect clients that have delayed the shutdown since ``stopping_since``."""
        for each in (*self.waiting, *self.answering):
            each.hurry(now, stopping_since)

    def note(self, why: str) -> None:
        """Count a disconnected client for the log; *why* is one of a few phrases."""
        self._cut_off[why] += 1
