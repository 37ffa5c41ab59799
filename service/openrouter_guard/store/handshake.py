"""Connections that send their handshake together with their first command, and time the answers.

redis-py waits for the answer to each step of the handshake. Here the steps are sent together with the first command,
so a new connection to a server 100 ms away costs one round trip instead of four, besides TCP and TLS.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import deque
from typing import Any, TypeAlias

import redis.asyncio as aioredis
from redis import exceptions as failures
from redis.asyncio.connection import AbstractConnection

from openrouter_guard.address import Login

__all__ = ["ByNetwork", "ByNetworkTLS", "BySocket", "Distance", "Greeting"]

CLIENT_NAME = "openrouter-guard"
_REMEMBERED = 8
_PATIENCE = 3.0
"""Redis may take this many times its slowest recent answer, if that is longer than the configured timeout."""
MOST_S = 3.0
"""But no longer than this."""
_NAMELESS: dict[str, None] = (
    {"driver_info": None}
    if "driver_info" in inspect.signature(AbstractConnection.__init__).parameters
    else {"lib_name": None, "lib_version": None}
)
"""redis-py would send its own name and version; its older releases name the option differently."""

_Step: TypeAlias = tuple[str | int, ...]


class Distance:
    """The distance of the server, by its last few answers over any connection."""

    def __init__(self) -> None:
        self._took_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._in_vain_s = 0.0

    def note(self, took_s: float) -> None:
        """Note an answer."""
        self._took_s.append(took_s)
        self._in_vain_s = 0.0

    def note_silence(self, waited_s: float) -> None:
        """Note a missing answer: if there never was one, the next wait is longer."""
        if not self._took_s:
            self._in_vain_s = waited_s

    @property
    def round_trip_s(self) -> float:
        """Return the slowest of the last eight answers, in seconds; 0 before the first."""
        return max(self._took_s, default=0.0)

    def patience_s(self, timeout_s: float) -> float:
        """Return how long to wait for an answer if *timeout_s* is configured."""
        return max(timeout_s, min(_PATIENCE * max(self.round_trip_s, self._in_vain_s), MOST_S))


class Greeting:
    """The handshake of each new connection to one server.

    Attributes:
        options: Options for redis-py's pool, so that it adds nothing of its own.
    """

    def __init__(self, login: Login, database: int, distance: Distance) -> None:
        self._steps: list[_Step] = []
        if login.username:
            self._steps.append(("AUTH", login.username, login.password))
        elif login.password:
            self._steps.append(("AUTH", login.password))
        self._steps.append(("CLIENT", "SETNAME", CLIENT_NAME))
        if database:
            self._steps.append(("SELECT", database))
        # RESP3 would need a request.
        self.options: dict[str, Any] = {
            "protocol": 2,
            "distance": distance,
            "redis_connect_func": self._greet,
            **_NAMELESS,
        }

    async def _greet(self, connection: _Eager) -> None:
        await connection.on_connect()
        await connection.greet(self._steps)


class _Eager(AbstractConnection):
    """Sends its greeting without waiting for the answers, which are read before those to the first command."""

    def __init__(self, *, distance: Distance, **options: Any) -> None:
        self._distance = distance
        self._greeted: deque[_Step] = deque()
        self._refusal: failures.ResponseError | None = None
        self._asked_at: float | None = None
        self._is_sending = False
        super().__init__(**options)

    # -- timeouts that grow with the distance -------------------------------------------------------------------

    @property
    def socket_timeout(self) -> float:
        # 0: redis-py sets no limit.
        return 0.0 if self._is_sending else self._distance.patience_s(self._answer_s)

    @socket_timeout.setter
    def socket_timeout(self, timeout_s: float) -> None:
        self._answer_s = timeout_s

    @property
    def socket_connect_timeout(self) -> float:
        return self._distance.patience_s(self._connect_s)

    @socket_connect_timeout.setter
    def socket_connect_timeout(self, timeout_s: float) -> None:
        self._connect_s = timeout_s

    async def connect(self) -> None:
        try:
            await super().connect()  # type: ignore[no-untyped-call]
        except failures.TimeoutError:
            self._distance.note_silence(self.socket_connect_timeout)
            raise

    # -- the greeting -------------------------------------------------------------------------------------------

    async def greet(self, steps: list[_Step]) -> None:
        self._greeted, self._refusal = deque(steps), None
        await self._send(self.pack_commands(steps))

    async def _is_greeted(self, **options: Any) -> bool:
        """Whether the server has answered to all of the greeting.

        Raises:
            redis.exceptions.ResponseError: If it refuses a required step.
        """
        while self._greeted:
            try:
                answer = await super().read_response(**options)
            except failures.ResponseError as error:
                # The name in its client list matters only to people.
                if self._greeted.popleft()[0] != "CLIENT":
                    self._refusal = error
            else:
                if answer is None:
                    return False
                self._greeted.popleft()
        if self._refusal is not None:
            await self.disconnect(nowait=True)
            # For each command sent with it, because none of the answers can be trusted.
            raise self._refusal
        return True

    # -- the first command, and those after it ------------------------------------------------------------------

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        self._asked_at = time.monotonic()
        if not self.is_connected:
            await self.connect()
        await self._send(command)

    async def _send(self, command: Any) -> None:
        """Send it without redis-py's time limit: before Python 3.12 that loses a cancellation of the task.

        So a task that was cancelled at this moment would go on for ever (``asyncio.wait_for``, bpo-37658).
        """
        limit_s = self.socket_timeout
        self._is_sending = True
        try:
            async with asyncio.timeout(limit_s):
                await super().send_packed_command(command, check_health=False)
        except TimeoutError:
            raise failures.TimeoutError("Timeout writing to socket") from None
        finally:
            self._is_sending = False

    async def read_response(self, *args: Any, **options: Any) -> Any:
        timeout = {"timeout": options["timeout"]} if options.get("timeout") is not None else {}
        try:
            if not await self._is_greeted(**timeout):
                return None
            answer = await super().read_response(*args, **options)
        except failures.TimeoutError:
            self._distance.note_silence(self.socket_timeout)
            raise
        if answer is not None and self._asked_at is not None:
            self._distance.note(time.monotonic() - self._asked_at)
            self._asked_at = None
        return answer

    async def can_read(self) -> bool:
        """Return whether there is unexpected data; an answer to the greeting is expected."""
        return not self._greeted and await super().can_read()

    async def can_read_destructive(self) -> bool:
        # The same by its name in older releases of redis-py.
        return not self._greeted and await super().can_read_destructive()


class ByNetwork(_Eager, aioredis.Connection):
    pass


class ByNetworkTLS(_Eager, aioredis.SSLConnection):
    async def disconnect(self, *args: Any, **options: Any) -> None:
        """Close it at once: with TLS it would wait for a farewell, in a loop that may have ended."""
        if self._writer is not None:
            self._writer.transport.abort()
        await super().disconnect(*args, **options)


class BySocket(_Eager, aioredis.UnixDomainSocketConnection):
    pass
