"""What the classes of existing users are given: a client of redis-py, an address, or nothing."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from typing import Any

from openrouter_guard.keys import DEFAULT_SCOPE
from openrouter_guard.settings import Settings
from openrouter_guard.store import client_of, url_of

__all__ = ["Handed", "settings_of"]


class Handed:
    """The client that was given, which stays open; or one for the address, made when it is first asked for."""

    def __init__(self, given: Any, redis_url: str) -> None:
        self._given = None if isinstance(given, str) else given
        self._made: Any = None
        self._url = redis_url

    @property
    def client(self) -> Any:
        if self._given is None and self._made is None:
            self._made = client_of(self._url)
        return self._made if self._given is None else self._given

    async def close(self) -> None:
        made, self._made = self._made, None
        if made is not None:
            with suppress(Exception):  # it may have belonged to an event loop that has ended
                await made.aclose()


def settings_of(given: Any, scope: str, worker_id: str = "") -> Settings:
    """The settings for what was given.

    An address stands for itself. Where a client was given, or nothing, the rest comes from the environment, as for
    ``Guard.from_env()``.

    Raises:
        ConfigurationError: If it is no client and no address, or the environment says what cannot be.
    """
    if isinstance(given, str):
        return Settings(redis_url=given, scope=scope, worker_id=worker_id)
    environ = os.environ if given is None else {**os.environ, "REDIS_URL": url_of(given)}
    settings = Settings.from_env(environ)
    scope = settings.scope if scope == DEFAULT_SCOPE else scope
    return replace(settings, scope=scope, worker_id=worker_id or settings.worker_id)
