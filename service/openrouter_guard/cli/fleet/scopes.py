"""Opens the scopes that a command is about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from openrouter_guard.settings import Settings
from openrouter_guard.store import Store, Timeouts

__all__ = ["BY", "OpenScope", "each", "opened"]

BY = "command line"
"""Author of decisions that are only shown."""


@dataclass(frozen=True, slots=True)
class OpenScope:
    """One scope, its settings and its store."""

    settings: Settings
    store: Store

    @property
    def name(self) -> str:
        return self.settings.scope


@asynccontextmanager
async def opened(environ: Mapping[str, str], names: Sequence[str] = ()) -> AsyncIterator[list[OpenScope]]:
    """Yield the named scopes; without names, those of the environment.

    Raises:
        ConfigurationError: If a setting is missing or invalid.
    """
    settings = Settings.from_env(environ)
    wanted = names or [settings.scope, *(further.scope for further in settings.further)]
    timeouts = Timeouts(settings.redis_timeout_s, settings.redis_timeout_s)
    async with AsyncExitStack() as stack:
        scopes: list[OpenScope] = []
        for name in dict.fromkeys(wanted):
            own = replace(settings, scope=name)
            store = Store(own.redis, name, timeouts)
            stack.push_async_callback(store.close)
            scopes.append(OpenScope(own, store))
        yield scopes


async def each(scopes: Sequence[OpenScope], ask: Callable[[OpenScope], Awaitable[Any]]) -> dict[str, Any]:
    """Ask about each scope at once; return the answers in the form of all commands.

    Raises:
        StoreError: If one of them cannot be read.
    """
    return {"scopes": list(await asyncio.gather(*map(ask, scopes)))}
