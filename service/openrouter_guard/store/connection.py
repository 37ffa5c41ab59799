"""The conversation with the server that holds our keys, which may move.

Sentinels may name another primary, and a Cluster may move our slot to another node. All keys of a scope share one
slot, so each is one server for us: there is one plain client at a time, and it is replaced when the server is lost or
redirects us.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import redis.asyncio as aioredis
from redis import exceptions as failures
from redis.asyncio.client import PubSub

from openrouter_guard.address import Address, Topology
from openrouter_guard.unreadable import unreadable_errors

from .error_translation import translated
from .server_discovery import ServerDiscovery, Timeouts

__all__ = ["Command", "Connection", "Script", "Timeouts"]

Command: TypeAlias = tuple[str | int | float, ...]

_MOVES = 8
"""Maximum number of redirects and retries by a Cluster within one conversation."""
_TRY_AGAIN_S = 0.02
QUIET_S = 30.0
"""After this time without a message, the client checks that messages still come.

The kernel detects a dead connection much sooner; this is for a proxy that outlives its server.
"""
_PONG_S = 1.0
"""Time limit for an answer on the listening connection; longer if Redis is far away."""


@dataclass(frozen=True)
class Script:
    """A script that runs inside Redis; it is sent once, and again whenever Redis has lost it."""

    text: str

    @cached_property
    def sha(self) -> str:
        return hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


class Connection:
    """Connects on first use, and again to the server's present place; never hangs.

    Raises:
        ConfigurationError: If a file named by the address cannot be read.
    """

    def __init__(self, address: Address, timeouts: Timeouts) -> None:
        self._where = str(address)
        self._topology = address.topology
        self._finder = ServerDiscovery(address, timeouts)
        self._client: aioredis.Redis | None = None
        self._retired: aioredis.Redis | None = None
        self._finding = asyncio.Lock()

    @property
    def round_trip_s(self) -> float:
        """The slowest of its last few answers, in seconds; 0 before the first."""
        return self._finder.distance.round_trip_s

    async def close(self) -> None:
        await self._retire(self._client)
        await self._retire(None)

    async def execute(self, *commands: Command) -> list[Any]:
        """Send commands together, and return their answers.

        Raises:
            StoreError: If one of them was refused or not answered.
        """
        with unreadable_errors(self._where), translated(self._where):
            answers = await self._answers(commands)
        for command, answer in zip(commands, answers, strict=True):
            with translated(self._where, key="".join(map(str, command[1:2]))):
                _raised(answer)
        return answers

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[str | int | float]) -> Any:
        """Run a script.

        Raises:
            StoreError: If it was refused or not answered.
        """
        # The scripts themselves handle the other keys.
        with unreadable_errors(self._where), translated(self._where, key=keys[0]):
            (answer,) = await self._answers([("EVALSHA", script.sha, len(keys), *keys, *args)])
            if isinstance(answer, failures.NoScriptError):
                # Sent as a whole, it cannot be lost again before it runs.
                (answer,) = await self._answers([("EVAL", script.text, len(keys), *keys, *args)])
            return _raised(answer)

    async def listen(self, channel: str) -> AsyncGenerator[str, None]:
        """Yield once when listening has begun, with nothing, then each message that is the last for now.

        In a Cluster every node forwards them.
        """
        with unreadable_errors(self._where), translated(self._where):
            client = await self._found()
            try:
                async with client.pubsub() as messages:
                    await messages.subscribe(channel)
                    async for message in self._messages(messages):
                        yield message
            except (failures.ConnectionError, failures.TimeoutError):
                await self._lost(client)
                raise

    async def _messages(self, messages: PubSub) -> AsyncGenerator[str, None]:
        """Wake at each message. A connection dropped by a firewall gives none, and no error either.

        Raises:
            redis.exceptions.TimeoutError: If the server no longer answers on it.
        """
        # It answers to the subscription too; changes before that answer would not be pushed.
        is_asked = True
        while True:
            patience_s = self._finder.distance.patience_s(_PONG_S)
            found = await messages.parse_response(block=False, timeout=patience_s if is_asked else QUIET_S)
            if found is None and is_asked:
                raise failures.TimeoutError(f"no pushes, and no answer for {patience_s:g} s")
            if is_asked := found is None:
                await messages.ping()
            elif found[0] == "subscribe":
                yield ""
            elif found[0] == "message":
                yield str((await _last_of(messages, found))[2])

    # -- one conversation ---------------------------------------------------------------------------------------

    async def _answers(self, commands: Sequence[Command]) -> list[Any]:
        """Return an answer or an error for each, from the node that the Cluster names; none is executed twice."""
        answers: list[Any] = [None] * len(commands)
        left = list(range(len(commands)))
        for _ in range(_MOVES):
            client = await self._found()
            for at, answer in zip(left, await self._sent(client, [commands[at] for at in left]), strict=True):
                answers[at] = answer
            left = [at for at in left if isinstance(answers[at], (failures.AskError, failures.TryAgainError))]
            if not left or self._topology is not Topology.CLUSTER:
                break
            for at in left:
                answers[at] = await self._followed(client, commands[at], answers[at])
            if not any(isinstance(answers[at], (failures.MovedError, failures.TryAgainError)) for at in left):
                break
            left = [at for at in range(len(commands)) if _is_open(commands[at], answers[at])]
        return answers

    async def _followed(self, client: aioredis.Redis, command: Command, answer: Exception) -> Any:
        """Follow the Cluster's redirect; another redirect there means: start again from there."""
        match answer:
            case failures.MovedError():
                await self._go(client, answer)
            case failures.AskError():
                # The slot is migrating, and some of our keys are there already: ask there this once.
                async with self._finder.client(_host(client, answer)) as other:
                    return (await self._sent(other, [("ASKING",), command]))[1]
            case _:
                await asyncio.sleep(_TRY_AGAIN_S)
        return answer

    async def _sent(self, client: aioredis.Redis, commands: Sequence[Command]) -> list[Any]:
        try:
            answers = await _exchanged(client, commands)
        except (failures.ConnectionError, failures.TimeoutError, OSError):
            await self._lost(client)
            raise
        if any(isinstance(answer, (failures.ReadOnlyError, failures.ClusterDownError)) for answer in answers):
            await self._lost(client)
        return answers

    # -- where it is --------------------------------------------------------------------------------------------

    async def _found(self) -> aioredis.Redis:
        if self._client is None:
            async with self._finding:
                self._client = self._client or await self._finder.find()
        return self._client

    async def _go(self, client: aioredis.Redis, moved: failures.MovedError) -> None:
        host = _host(client, moved)
        async with self._finding:
            if client is self._client:
                self._finder.learn(host)
                self._client = self._finder.client(host)
                await self._retire(client)

    async def _lost(self, client: aioredis.Redis) -> None:
        """Search the server again, at the next conversation."""
        if client is not self._client:
            return
        if self._topology in (Topology.SERVER, Topology.SOCKET):
            # The name may point to another server by now.
            await client.connection_pool.disconnect(inuse_connections=False)
        else:
            self._client = None
            await self._retire(client)

    async def _retire(self, client: aioredis.Redis | None) -> None:
        """Close it, but not while others may still wait for an answer: when the next one goes."""
        retired, self._retired = self._retired, client
        if retired is not None:
            await retired.aclose()


async def _exchanged(client: aioredis.Redis, commands: Sequence[Command]) -> list[Any]:
    if len(commands) == 1:
        try:
            return [await client.execute_command(*commands[0])]  # type: ignore[no-untyped-call]
        except failures.ResponseError as error:
            return [error]
    async with client.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*command)
        return list(await pipe.execute(raise_on_error=False))


def _host(client: aioredis.Redis, answer: failures.AskError) -> tuple[str, int]:
    """Target of a Cluster's redirect; without a name: another port of the same host."""
    return str(answer.host or client.connection_pool.connection_kwargs["host"]), int(answer.port)


async def _last_of(messages: PubSub, found: list[Any]) -> list[Any]:
    """The last of the waiting messages: one read covers everything before it."""
    while (another := await messages.parse_response(block=False, timeout=0)) is not None:
        found = another if another[0] == "message" else found
    return found


def _is_open(command: Command, answer: Any) -> bool:
    """Return whether to send it again; the clock of the node with the keys counts."""
    return isinstance(answer, (failures.MovedError, failures.TryAgainError)) or command == ("TIME",)


def _raised(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer
