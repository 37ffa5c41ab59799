"""Sends changes as they happen to many clients at once: encoded once, never waiting for the slowest.

A frame is one event of `server-sent events <https://html.spec.whatwg.org/multipage/server-sent-events.html>`_:
``transition`` for each change of the breaker, and ``state`` with the whole status whenever that changes. Their id is
the breaker's epoch, so a client that reconnects names the last event it received.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from starlette.types import Receive, Send

from openrouter_guard.api.http.conditional import without
from openrouter_guard.api.http.open_requests import OpenRequests, disconnected
from openrouter_guard.api.schemas.activity import TransitionAnswer
from openrouter_guard.background import cancelled
from openrouter_guard.replica import Snapshot
from openrouter_guard.rules.shared_state import SharedState, Transition

__all__ = ["MEDIA_TYPE", "Client", "EventStream", "deliver"]

logger = logging.getLogger(__name__)

MEDIA_TYPE = "text/event-stream"
HEARTBEAT_S = 15.0
"""Proxies close a silent connection after a minute or so."""
HEARTBEAT = b": heartbeat\n\n"
RETRY = b"retry: 2000\n\n"
"""Milliseconds after which a client reconnects."""
SEND_S = 10.0
"""A client that reads nothing for this long is dropped."""
BACKLOG = 64
"""Frames that may wait for one client."""
COALESCE_S = 0.1
"""At most ten states a second, however fast the counters change; every transition is sent."""


class Client:
    """The queue of one client."""

    def __init__(self, frames: Sequence[bytes]) -> None:
        self._frames = deque(frames)
        self._wake = asyncio.Event()
        self._wake.set()
        self.has_ended = False

    def put(self, frames: Sequence[bytes]) -> None:
        """Queue frames. A client with too many is dropped, and gets the state when it reconnects."""
        if self.has_ended:
            return
        if len(self._frames) + len(frames) > BACKLOG:
            logger.info("an event stream is too slow and is dropped")
            self.end()
            return
        self._frames.extend(frames)
        self._wake.set()

    def end(self) -> None:
        self.has_ended = True
        self._wake.set()

    async def next(self) -> bytes:
        """Return all waiting frames, or a heartbeat; empty at the end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(HEARTBEAT_S):
                await self._wake.wait()
        self._wake.clear()
        if self.has_ended:
            return b""
        frames = b"".join(self._frames) or HEARTBEAT
        self._frames.clear()
        return frames


class EventStream:
    """The clients of one scope.

    Args:
        news: Returns when there may be a change.
        view: The current view.
        status: Encodes a snapshot as the status in JSON.
        open_requests: Limits the number of clients.
    """

    def __init__(
        self,
        news: Callable[[], Awaitable[None]],
        view: Callable[[], Snapshot],
        status: Callable[[Snapshot], str],
        open_requests: OpenRequests,
    ) -> None:
        self._news = news
        self._view = view
        self._status = status
        self._open_requests = open_requests
        self._clients: set[Client] = set()
        self._told = ""
        self._told_epoch: int | None = None

    @property
    def clients(self) -> int:
        return len(self._clients)

    async def follow(self) -> None:
        """Send changes to all clients, and look once more: changes during a look woke no task."""
        await self._news()
        self.tell()
        await asyncio.sleep(COALESCE_S)
        self.tell()

    def tell(self) -> None:
        view = self._view()
        record, body = view.record or SharedState(), self._status(view)
        changes = self._changes(view)
        stable = without(body, "age_seconds")
        if stable == self._told and not changes:
            return
        self._told = stable
        frames = [*map(_of_transition, changes), _frame("state", record.epoch, body)]
        for client in tuple(self._clients):
            client.put(frames)

    def subscribe(self, seen_epoch: int | None = None) -> Client:
        """Add a client, to be passed to :meth:`leave` at the end; it begins with the events it missed, and the state.

        Raises:
            TooManyClients: If the maximum of clients is reached, or the service stops.
        """
        view = self._view()
        record, body = view.record or SharedState(), self._status(view)
        if self._told_epoch is None:
            self._changes(view)
        if not self._told:
            self._told = without(body, "age_seconds")
        missed = _later(record, seen_epoch) if seen_epoch is not None else ()
        self._open_requests.take()
        client = Client([RETRY, *map(_of_transition, missed), _frame("state", record.epoch, body)])
        self._clients.add(client)
        return client

    def _changes(self, view: Snapshot) -> tuple[Transition, ...]:
        """Return the transitions since the last call; the first call returns none."""
        record, told = view.record, self._told_epoch
        if record is None:
            # Without a state there is none; without Redis it is unknown.
            self._told_epoch = told if told is not None or view.is_degraded else 0
            return ()
        self._told_epoch = max(told or 0, record.epoch)
        return () if told is None else _later(record, told)

    def leave(self, client: Client) -> None:
        self._clients.discard(client)
        self._open_requests.leave()

    def close(self) -> None:
        """End every stream, and accept no more clients."""
        self._open_requests.close()
        for client in self._clients:
            client.end()


async def deliver(client: Client, receive: Receive, send: Send) -> None:
    """Send the events of *client* until either side ends."""
    gone = asyncio.create_task(disconnected(receive))
    gone.add_done_callback(lambda _: client.end())
    try:
        while piece := await client.next():
            async with asyncio.timeout(SEND_S):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        async with asyncio.timeout(SEND_S):
            await send({"type": "http.response.body", "body": b""})
    except TimeoutError:
        # Its buffer is full, so the end cannot be sent either: the server closes the connection.
        logger.info("the client of an event stream reads nothing and is dropped")
    finally:
        await cancelled(gone)


def _later(record: SharedState, epoch: int) -> tuple[Transition, ...]:
    return tuple(change for change in record.transitions if change.epoch > epoch)


def _of_transition(change: Transition) -> bytes:
    return _frame("transition", change.epoch, TransitionAnswer.of(change).model_dump_json(by_alias=True))


def _frame(event: str, epoch: int, data: str) -> bytes:
    """JSON text has no line breaks, so one line holds it."""
    return f"event: {event}\nid: {epoch}\ndata: {data}\n\n".encode()
