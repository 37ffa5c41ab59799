"""The shared state of each scope that some resource asks for, pushed and polled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from openrouter_guard.rules.breaker import Closed, Open, Phase
from openrouter_guard.rules.record import Record
from openrouter_guard.runtime import Background, Cache, View, cancelled
from openrouter_guard.settings import Settings
from openrouter_guard.store import Store, Timeouts

from .reading import Reading

__all__ = ["Feed", "Feeds"]


class Feed:
    """One scope. Calls *on_news* whenever there is something new to decide on."""

    def __init__(self, settings: Settings, scope: str, by: str, on_news: Callable[[str], None]) -> None:
        timeouts = Timeouts(settings.redis_timeout_s, settings.redis_timeout_s)
        self._scope = scope
        self._store = Store(settings.redis_url, scope, timeouts)
        self._cache = Cache(self._store, settings.policy, by)
        self._on_news = on_news
        self._background = Background()
        self._told: object = None
        self._last_known_s = self._cache.now_s
        self._closed_s = 0.0

    async def start(self) -> None:
        """Look once, bounded, so that the first decision finds the state; then keep looking."""
        await self._cache.refresh()
        self._notice()
        self._background.start("state", self._follow)
        self._background.start("pushes", self._cache.listen, waits=True)

    async def stop(self) -> None:
        await self._background.stop()
        await self._store.close()

    def stalled(self) -> list[str]:
        return self._background.stalled()

    @property
    def now_s(self) -> float:
        """Redis' clock."""
        return self._cache.now_s

    def read(self) -> Reading:
        """What is known now; asks nobody."""
        view = self._cache.view
        return Reading(
            record=view.record,
            now_s=view.now_s,
            is_fresh=_is_fresh(view),
            last_known_s=view.now_s if _is_fresh(view) else self._last_known_s,
            since_s=self._since_s(view.record, view.now_s) if view.record else 0.0,
            error=str(view.error) if view.error else "",
            scope=self._scope,
        )

    async def _follow(self) -> None:
        await self._cache.follow()
        self._notice()

    def _notice(self) -> None:
        view = self._cache.view
        if _is_fresh(view):
            self._last_known_s = view.now_s
        is_closed = view.record is not None and view.record.phase(view.now_s) is Phase.CLOSED
        self._closed_s = (self._closed_s or view.now_s) if is_closed else 0.0
        news = _news(view)
        if news != self._told:
            self._told = news
            self._on_news(self._scope)

    def _since_s(self, record: Record, now_s: float) -> float:
        """When the breaker came into its state, as far as anybody knows."""
        if record.standing(now_s) is not None and record.transitions:
            return record.transitions[-1].at_s
        match record.breaker:
            case Closed(since_s=since_s):
                return since_s or self._closed_s or now_s
            case Open(until_s=until_s) if until_s <= now_s:
                return until_s
            case breaker:
                return record.transitions[-1].at_s if record.transitions else breaker.opened_at_s


def _is_fresh(view: View) -> bool:
    return view.record is not None and not view.is_degraded


def _news(view: View) -> object:
    """What is worth a look, and not the counters and times that change all the while."""
    record = view.record
    if record is None:
        return view.is_degraded
    on_probation = getattr(record.breaker, "on_probation", False)
    state = (record.epoch, record.phase(view.now_s), on_probation)
    return (view.is_degraded, *state, record.upstream.state, record.upstream.rate_limit_reset_s)


class Feeds:
    """A feed for each scope, started when it is first asked for."""

    def __init__(self, settings: Settings, by: str, on_news: Callable[[str], None]) -> None:
        self._settings = settings
        self._by = by
        self._on_news = on_news
        self._feeds: dict[str, Feed] = {}
        self._starts: dict[str, asyncio.Task[None]] = {}

    async def of(self, scope: str) -> Feed:
        """The feed of the scope, once it has looked; scopes do not wait for each other.

        Raises:
            ConfigurationError: If the address or the scope cannot be used.
        """
        if scope not in self._feeds:
            self._feeds[scope] = Feed(self._settings, scope, self._by, self._on_news)
            self._starts[scope] = asyncio.create_task(self._feeds[scope].start())
        await asyncio.shield(self._starts[scope])
        return self._feeds[scope]

    def stalled(self) -> list[str]:
        return [f"{scope}: {name}" for scope, feed in self._feeds.items() for name in feed.stalled()]

    async def stop(self) -> None:
        feeds, self._feeds = self._feeds, {}
        starts, self._starts = self._starts, {}
        await cancelled(*starts.values())
        await asyncio.gather(*(feed.stop() for feed in feeds.values()))
