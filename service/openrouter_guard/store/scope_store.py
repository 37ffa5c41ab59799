"""What the counters, the history and presence of one scope share: its keys, and scripts that may not do all."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from redis.exceptions import ResponseError

from openrouter_guard.keys import Keys
from openrouter_guard.log_once import LogOnce

from .connection import Connection, Script
from .error_translation import explained, foreign_key

__all__ = ["ScopeStore"]

logger = logging.getLogger(__name__)

_OPTIONAL = {
    "XADD": ("Redis takes nothing into the history", "Redis takes the history again"),
    "PUBLISH": ("Redis passes nothing on, others must look for it", "Redis publishes changes again"),
}
"""Commands that the scripts run if allowed."""


class ScopeStore:
    """A part of one scope's data in Redis.

    Every method raises: StoreUnavailable: If Redis is away or slow. StoreRefused: If Redis refuses. StateUnreadable:
    If the stored state cannot be decoded. ForeignValue: If a key holds a foreign value.
    """

    def __init__(self, connection: Connection, keys: Keys, address: str) -> None:
        self._connection = connection
        self._foreign: frozenset[str] = frozenset()
        self._optional = {command: LogOnce(*said, scope=keys.scope) for command, said in _OPTIONAL.items()}
        self.keys = keys
        self.address = address

    async def _run(
        self, script: Script, keys: Mapping[str, object], args: Sequence[str | int], more: Sequence[str] = ()
    ) -> list[Any]:
        """Return the answer of a script, without the parts it could not do, which are logged once.

        Args:
            script: To run.
            keys: Its keys, each with whether it is used this time.
            args: Its other arguments.
            more: Further keys, after the others.
        """
        answer: list[Any]
        *answer, foreign, optional = await self._connection.run(script, [*keys, *more], args)
        self._note_foreign([*(key for key, is_used in keys.items() if is_used), *more], foreign)
        for command, error in zip(optional[::2], optional[1::2], strict=True):
            self._note_optional(command, error)
        return answer

    def _note_optional(self, command: str, error: str) -> None:
        if error:
            self._optional[command].failed(explained(ResponseError(error), self.address))
        else:
            self._optional[command].worked()

    def _note_foreign(self, used: Sequence[str], foreign: Sequence[str]) -> None:
        for key in foreign:
            if key not in self._foreign:
                with suppress(Exception):  # a handler of the application's log may raise anything
                    logger.warning("%s; until then nothing is kept there", foreign_key(key, self.address))
        self._foreign = self._foreign.difference(used).union(foreign)
