"""A drill of one scope, with Redis alone: operators report the workloads that they have paused."""

from __future__ import annotations

from openrouter_guard.cli.fleet.scopes import OpenScope
from openrouter_guard.cli.fleet.state import paused_of
from openrouter_guard.errors import ConfigurationError
from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.rules.override import Override, OverrideKind
from openrouter_guard.rules.shared_state import SharedState, fresh
from openrouter_guard.rules.transitions import overridden, released

from .course import Seen
from .rehearsal import WHY

__all__ = ["ScopeSubject"]


class ScopeSubject:
    """A scope that is forced open for the whole fleet."""

    def __init__(self, scope: OpenScope, who: str) -> None:
        self._scope = scope
        self._who = who
        self._override: Override | None = None
        self._is_released = False

    @property
    def name(self) -> str:
        return f"scope {self._scope.name}"

    async def seen(self) -> Seen:
        reports = paused_of(await self._scope.store.paused())
        return Seen(frozenset(f"{each['resource']} {workload}" for each in reports for workload in each["workloads"]))

    async def force(self, for_s: float) -> None:
        await self._scope.store.change(lambda record, now: self._forced(record or fresh(now), now, for_s))

    def _forced(self, record: SharedState, now: float, for_s: float) -> SharedState:
        if record.standing(now) is not None or record.phase(now) is not BreakerState.CLOSED:
            raise ConfigurationError(
                f"the breaker of {self.name} is not closed, or overridden: drill when all is well"
            )
        self._override = Override(OverrideKind.FORCED_OPEN, self._who, WHY, now + for_s)
        return overridden(record, self._override, now)

    async def release(self) -> bool:
        await self._scope.store.change(self._released)
        return self._is_released

    def _released(self, record: SharedState | None, now: float) -> SharedState | None:
        if record is None or record.override is None or record.override != self._override:
            return record
        self._is_released = True
        return released(record, by=self._who, now=now)
