"""Accepts the arguments of the existing classes: a client of redis-py, an address, or nothing."""

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
    """The given client, which stays open; or one for the address, created on first use."""

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
            with suppress(Exception):  # it may belong to an event loop that has ended
                await made.aclose()


def settings_of(given: Any, scope: str, worker_id: str = "") -> Settings:
    """Return the settings for the given client or address.

    An address is used alone. With a client, or without arguments, all other settings come from the environment, as
    for ``Guard.from_env()``.

    Raises:
        ConfigurationError: If it is neither a client nor an address, or the environment is invalid.
    """
    if isinstance(given, str):
        return Settings(redis_url=given, scope=scope, worker_id=worker_id)
    environ = os.environ if given is None else {**os.environ, "REDIS_URL": url_of(given)}
    settings = Settings.from_env(environ)
    scope = settings.scope if scope == DEFAULT_SCOPE else scope
    return replace(settings, scope=scope, worker_id=worker_id or settings.worker_id)
