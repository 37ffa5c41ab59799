"""The shared state of each scope in use, pushed and polled; while Redis is away, the last known one and its age."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeAlias

from openrouter_guard.background import Background, cancelled
from openrouter_guard.errors import StoreError, StoreUnavailable
from openrouter_guard.replica import Replica, Snapshot
from openrouter_guard.rules import time_in_state
from openrouter_guard.rules.breaker import BreakerState, Closed, Open
from openrouter_guard.rules.codec import iso
from openrouter_guard.rules.override import Override
from openrouter_guard.rules.parsing import line_of
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.settings import Settings
from openrouter_guard.store import Store, Timeouts
from openrouter_operator.decisions.snapshot import ScopeSnapshot, readable
from openrouter_operator.resource import overrides

from .transition_line import TransitionLine

__all__ = ["CLUSTER", "Feed", "FeedKey", "Feeds", "Unreadable"]

CLUSTER = "kubernetes"
Clock: TypeAlias = Callable[[], float]
FeedKey: TypeAlias = tuple[str, str]
"""The address of a Redis, empty for the operator's own, and the scope."""
TOLD = 50
"""Maximum number of workloads named on the status page."""
TELL_S = 0.1
"""Many resources pause at once: all of them are reported to the page together."""
TELL_AGAIN_S = 5.0
KEEP_ALIVE_S = 60.0
"""Workers and service renew a waiting state twice a minute."""


class Feed:
    """One scope. Calls *on_news* after each relevant change."""

    def __init__(
        self,
        settings: Settings,
        by: str,
        on_news: Callable[[str], None],
        cluster: str = CLUSTER,
        clock: Clock = time.time,
    ) -> None:
        timeouts = Timeouts(settings.redis_timeout_s, settings.redis_timeout_s)
        self._scope = settings.scope
        self._store = Store(settings.redis, settings.scope, timeouts)
        self._replica = Replica(self._store, settings.policy, by, clock)
        self._on_news = on_news
        self._background = Background()
        self._told: object = None
        self._last_known_at = self._replica.now
        self._closed_at = 0.0
        self._cluster = cluster
        self._paused: dict[str, tuple[str, ...]] = {}
        self._untold = asyncio.Event()
        self._begun = 0
        self._line = TransitionLine(settings.scope)

    async def start(self) -> None:
        """Read once, within a time limit, so that the first decision finds the state; then keep reading."""
        await self._replica.refresh()
        self._notice()
        self._background.start("state", self._follow)
        self._background.start("pushes", self._replica.listen, waits=True)
        self._background.start("paused", self._tell, waits=True)

    async def stop(self) -> None:
        """Stop, after all pending reports to the status page."""
        await self._background.stop()
        if self._untold.is_set():
            with suppress(StoreError):
                await self._store.tell_paused(self._cluster, self._about())
        await self._store.close()

    def forget(self) -> None:
        """Report that no resource of this scope has paused workloads any more."""
        if self._paused:
            self._paused.clear()
            self._untold.set()

    async def override(self, wish: Override | None, who: str) -> None:
        """Set the override for the whole scope, or withdraw the one set by *who*.

        Raises:
            StoreError: If the outcome is uncertain.
        """

        def decide(record: SharedState | None, now: float) -> SharedState | None:
            base = self._replica.base(record, now) if wish else record
            return overrides.decided(base, wish, who, now)

        await self._replica.change(decide)
        self._notice()

    def tell(self, resource: str, workloads: Sequence[str]) -> None:
        """Report a resource's paused workloads to the status page soon, in the background."""
        known = self._paused.pop(resource, ())
        if workloads:
            self._paused[resource] = tuple(workloads)
        if known != tuple(workloads):
            self._untold.set()

    def stalled(self) -> list[str]:
        return self._background.stalled()

    @property
    def now(self) -> float:
        """Redis' clock."""
        return self._replica.now

    @property
    def age_s(self) -> float:
        """Seconds since the state was last read."""
        return max(self._replica.now - self._last_known_at, 0.0)

    def read(self) -> ScopeSnapshot:
        """Return the current snapshot, without a request."""
        view = self._replica.view
        return ScopeSnapshot(
            record=readable(view.record) if view.record else None,
            now=view.now,
            is_fresh=_is_fresh(view),
            last_known_at=view.now if _is_fresh(view) else self._last_known_at,
            since=self._since(view.record, view.now) if view.record else 0.0,
            error=line_of(str(view.error)) if view.error else "",
            scope=self._scope,
        )

    async def _tell(self) -> None:
        """Report the paused workloads of many resources at once; repeat until Redis accepts it."""
        await self._untold.wait()
        await asyncio.sleep(TELL_S)
        self._untold.clear()
        try:
            await self._store.tell_paused(self._cluster, self._about())
        except StoreError:
            self._untold.set()
            await asyncio.sleep(TELL_AGAIN_S)

    def _about(self) -> Mapping[str, Any]:
        return {
            "last_seen": iso(self.now),
            "resource": ", ".join(sorted(self._paused)),
            "workloads": sorted(name for found in self._paused.values() for name in found)[:TOLD],
            "paused": sum(map(len, self._paused.values())),
        }

    async def _follow(self) -> None:
        await self._replica.follow()
        self._notice()
        await self._keep_alive()

    async def _keep_alive(self) -> None:
        """If workers and service are away, an outage must not expire while workloads are paused because of it."""
        view = self._replica.view
        if view.record is None or view.is_degraded or view.record.phase(view.now) is BreakerState.CLOSED:
            return
        if time_in_state.is_due(view.record, view.now, KEEP_ALIVE_S):
            with suppress(StoreError):
                await self._store.keep_time()

    def _notice(self) -> None:
        view = self._replica.view
        self._line.look(view)
        if _is_fresh(view):
            self._last_known_at = view.now
        self._tell_again(view.record)
        is_closed = view.record is not None and view.record.phase(view.now) is BreakerState.CLOSED
        # Redis' clock may be set back, as after a failover.
        self._closed_at = min(self._closed_at or view.now, view.now) if is_closed else 0.0
        news = _news(view)
        if news != self._told:
            self._told = news
            self._on_news(self._scope)

    def _tell_again(self, record: SharedState | None) -> None:
        """If Redis has lost the state, it has also lost the list of paused workloads."""
        begun, self._begun = self._begun, record.begun if record else self._begun
        if begun and begun != self._begun and self._paused:
            self._untold.set()

    def _since(self, record: SharedState, now: float) -> float:
        """Return when the breaker entered its state, if known."""
        if record.standing(now) is not None and record.transitions:
            return record.transitions[-1].at
        match record.breaker:
            case Closed(since=since):
                return since if 0 < since <= now else self._closed_at or now
            case Open(until=until) if until <= now:
                return until
            case breaker:
                return record.transitions[-1].at if record.transitions else breaker.opened_at


def _is_fresh(view: Snapshot) -> bool:
    return view.record is not None and not view.is_degraded


def _news(view: Snapshot) -> object:
    """Return the parts relevant to decisions, without the counters and times that change all the time."""
    record = view.record
    if record is None:
        return view.is_degraded
    on_probation = record.breaker.on_probation
    state = (record.epoch, record.phase(view.now), on_probation)
    return (view.is_degraded, *state, record.upstream.state, record.upstream.limited_until)


class Unreadable:
    """Replaces a feed whose Redis is unknown: its state is unknown, with the reason."""

    def __init__(self, scope: str, why: str, clock: Clock = time.time) -> None:
        self._scope = scope
        self._why = why
        self._clock = clock

    @property
    def now(self) -> float:
        return self._clock()

    def read(self) -> ScopeSnapshot:
        return ScopeSnapshot(
            None, self.now, is_fresh=False, last_known_at=self.now, error=self._why, scope=self._scope
        )

    async def override(self, _wish: Override | None, _who: str) -> None:
        raise StoreUnavailable(self._why)

    def tell(self, _resource: str, _workloads: Sequence[str]) -> None:
        return


class Feeds:
    """A feed for each scope of each Redis, started on first use.

    Attributes:
        clock: Unix seconds, as long as the clock of a Redis is unknown.
    """

    def __init__(
        self,
        settings: Settings,
        by: str,
        on_news: Callable[[str], None],
        cluster: str = CLUSTER,
        clock: Clock = time.time,
    ) -> None:
        self.clock = clock
        self._cluster = cluster
        self._settings = settings
        self._by = by
        self._on_news = on_news
        self._feeds: dict[FeedKey, Feed] = {}
        self._starts: dict[FeedKey, asyncio.Task[None]] = {}

    async def of(self, scope: str, redis_url: str = "") -> Feed:
        """Return the feed of the scope after its first read; scopes do not wait for each other.

        Without an address: our own.

        Raises:
            ConfigurationError: If the address or the scope is invalid.
        """
        key = (redis_url, scope)
        if key not in self._feeds:
            settings = replace(self._settings, redis_url=redis_url or self._settings.redis_url, scope=scope)
            self._feeds[key] = Feed(settings, self._by, self._on_news, self._cluster, self.clock)
            self._starts[key] = asyncio.create_task(self._feeds[key].start())
        await asyncio.shield(self._starts[key])
        return self._feeds[key]

    async def keep_only(self, keys: Collection[FeedKey]) -> None:
        """Stop all others, and close their connections."""
        unused = self._feeds.keys() - set(keys)
        stopping = [(self._starts.pop(key), self._feeds.pop(key)) for key in unused]
        for start, feed in stopping:
            await cancelled(start)
            feed.forget()
            await feed.stop()

    def stalled(self) -> list[str]:
        return [f"{scope}: {name}" for (_, scope), feed in self._feeds.items() for name in feed.stalled()]

    def ages_s(self) -> Mapping[str, float]:
        """Return the seconds since the state of each scope was last read.

        For several Redis with one scope, the oldest.
        """
        ages: dict[str, float] = {}
        for (_, scope), feed in self._feeds.items():
            ages[scope] = max(feed.age_s, ages.get(scope, 0.0))
        return ages

    async def stop(self) -> None:
        feeds, self._feeds = self._feeds, {}
        starts, self._starts = self._starts, {}
        await cancelled(*starts.values())
        await asyncio.gather(*(feed.stop() for feed in feeds.values()))
