"""Read, count and commit: all commands of this product to Redis."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Self, TypeAlias

from openrouter_guard.address import Address, parse_address
from openrouter_guard.errors import ForeignValue, StoreContended
from openrouter_guard.keys import DEFAULT_SCOPE, Keys
from openrouter_guard.rules import push_message, time_in_state, trial_calls
from openrouter_guard.rules.breaker import Closed, Policy
from openrouter_guard.rules.codec import FIELDS, GUARDS, encode, iso, parse
from openrouter_guard.rules.models import Models, Run
from openrouter_guard.rules.models import parse as parse_models
from openrouter_guard.rules.parsing import DAMAGED
from openrouter_guard.rules.question import Question
from openrouter_guard.rules.shared_state import SharedState, Transition
from openrouter_guard.rules.text import json_text
from openrouter_guard.unreadable import reads_state

from .connection import Command, Connection, Timeouts
from .counters import Counters, time_counters
from .history import History
from .presence import Presences
from .scripts import ANSWER, COMMIT, COUNT, PERMIT

__all__ = ["Batch", "Counted", "Seen", "Store"]

STATE_LIFE_S = 600
"""``DEFAULT_TTL`` x 2: how long a closed state outlives its last write."""
WAITING_LIFE_S = 3600
"""How long a waiting state outlives the end of its wait, if all our processes go away.

Otherwise earlier systems would wait for ever.
"""
_TRIES = 20
LOST = "lost"
_NEWS = frozenset(
    {"state", "rate_limit_reset", "limited_until", "checked_at", "circuit_breaker_open", "check_wanted", "question"}
)
"""The fields whose changes listeners need to see at once."""

LATE_MOST_S = 300.0
"""A call never ends this much later than its report; such a time is invalid."""
Decide: TypeAlias = Callable[[SharedState | None, float], SharedState | None]
"""Maps the record (None: no key) and the time to its successor (None: leave it)."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The state as it was read.

    Attributes:
        record: None if the key is missing.
        now: The server's clock at the read, Unix seconds.
        raw: The fields of the record as read.
        models: Single models with a state of their own.
    """

    record: SharedState | None
    now: float
    raw: Mapping[str, str]
    models: Models = field(default_factory=dict)

    def became(self, record: SharedState) -> Seen:
        """Return the state after *record* was committed."""
        return replace(self, record=record, raw=dict(self.raw) | encode(record))


@dataclass(frozen=True, slots=True)
class Batch:
    """Results of one reporter, in their order.

    Attributes:
        epoch: Epoch in which the calls began; 0 if unknown.
        seq: Grows with every batch, so that a batch whose fate is uncertain can be sent again. None for a batch that
            is not: it always counts, whatever number its reporter has reached elsewhere.
        runs: ``("S", 12), ("F", 3)`` is twelve successes, then three failures; ``("C", 1)`` is a failure that reports
            an empty account.
        fields: Fields of the hash to set if the results count.
        counters: Additions to the day's metrics.
        errors: JSON entries for the log of worker errors, oldest first.
        models: Results of calls to single models, if relevant.
        last_success_at: End of the last success, and
        first_failure_at: of the first failure after it, by the server's clock; 0 for now. A late success does not end
            a run of failures that began after it.
        evidence: Of the failures with a known start: their number, the earliest start, their total duration, and the
            longest.
        are_timed: Whether the start of all successes is known, because their reporter answers questions to the fleet.
        last_begun_at: Latest start of a success; 0 if unknown.
        earlier: Number of successes that began before the batch's own failed calls, and did not end their run.
        window: Ended, failed and slow calls, and how many seconds back to keep them; None if the optional rates are
            off.
    """

    epoch: int
    reporter: str
    seq: int | None
    runs: Sequence[tuple[str, int]]
    fields: Mapping[str, str] = field(default_factory=dict)
    counters: Mapping[str, int] = field(default_factory=dict)
    errors: Sequence[str] = ()
    models: Mapping[str, Run] = field(default_factory=dict)
    last_success_at: float = 0.0
    first_failure_at: float = 0.0
    window: tuple[int, int, int, int] | None = None
    evidence: tuple[int, float, float, float] | None = None
    are_timed: bool = False
    last_begun_at: float = 0.0
    earlier: int = 0


@dataclass(frozen=True, slots=True)
class Counted:
    """The outcome of a batch.

    Attributes:
        verdict: ``counted``, ``late`` or ``repeated``.
        seen: The state after it.
        older_writer_at: Seconds since an older writer was last noticed, which wakes no listener; None without one.
    """

    verdict: str
    seen: Seen
    older_writer_at: float | None = None


class Store(Counters, History, Presences):
    """The shared state of one scope.

    Every method raises: StoreUnavailable: If Redis is away or slow. StoreRefused: If Redis refuses. StateUnreadable:
    If the stored state cannot be decoded. ForeignValue: If a key holds a foreign value.
    """

    def __init__(self, address: Address, scope: str = DEFAULT_SCOPE, timeouts: Timeouts | None = None) -> None:
        super().__init__(Connection(address, timeouts or Timeouts()), Keys(scope), str(address))
        self._database = address.database

    @classmethod
    def from_url(cls, url: str, scope: str = DEFAULT_SCOPE, timeouts: Timeouts | None = None) -> Self:
        """Return the store at the address.

        Raises:
            ConfigurationError: If it is not an address of Redis, or cannot hold the scope.
        """
        return cls(parse_address(url).for_scope(scope), scope, timeouts)

    async def close(self) -> None:
        await self._connection.close()

    @property
    def round_trip_s(self) -> float:
        """The distance of Redis: the slowest of its last few answers, in seconds; 0 before the first."""
        return self._connection.round_trip_s

    async def ping(self) -> None:
        await self._connection.execute(("PING",))

    @reads_state
    async def read(self) -> Seen:
        models = self.keys.models
        state: tuple[Command, ...] = (("TIME",), ("HMGET", self.keys.state, *FIELDS))
        try:
            time, values, found = await self._connection.execute(*state, ("HGETALL", models))
            self._note_foreign([models], [])
        except ForeignValue as error:
            if error.key != models:
                raise
            time, values = await self._connection.execute(*state)
            found = {}
            self._note_foreign([models], [models])
        return _seen(time, values, found)

    @reads_state
    async def count(self, batch: Batch, *, at: float, lost: Decide | None = None) -> Counted:
        """Count a batch, once.

        Args:
            batch: The results.
            at: Selects the day of the metrics.
            lost: If Redis has lost the state, its initial state before they are counted, if known.
        """
        counted = await self._count(batch, at, knows_more=lost is not None)
        if lost is not None and counted.verdict == LOST:
            await self.change(lost, counted.seen)
            counted = await self._count(batch, at, knows_more=False)
        return counted

    async def _count(self, batch: Batch, at: float, *, knows_more: bool) -> Counted:
        keys = self.keys
        verdict, seconds, micros, values, models, older_at = await self._run(
            COUNT,
            {
                keys.state: True,
                keys.metrics(at): batch.counters,
                keys.worker_errors(at): batch.errors,
                keys.models: True,
            },
            [json_text(self._counting(batch, at) | {"knows_more": knows_more})],
        )
        found = dict(zip(models[::2], models[1::2], strict=True))
        return Counted(verdict, _seen((seconds, micros), values, found), float(older_at) if older_at else None)

    def _counting(self, batch: Batch, at: float) -> dict[str, object]:
        """Return the arguments of count.lua."""
        return {
            "epoch": batch.epoch,
            "reporter": batch.reporter,
            "seq": batch.seq,
            "runs": batch.runs,
            "fields": batch.fields,
            "latest": iso(max(at, batch.last_success_at, batch.first_failure_at) + LATE_MOST_S),
            "counters": batch.counters,
            "errors": batch.errors,
            "models": {name: _fields_of_run(run) for name, run in batch.models.items()},
            "last_success_s": batch.last_success_at,
            "first_failure_s": batch.first_failure_at,
            "window": batch.window or (),
            "evidence": batch.evidence or (),
            "are_timed": batch.are_timed,
            "last_begun_s": batch.last_begun_at,
            "earlier": batch.earlier,
            "life_s": STATE_LIFE_S,
            "scope": self.keys.scope,
            "channel": self.keys.events,
        }

    @reads_state
    async def commit(self, seen: Seen, new: SharedState) -> SharedState | None:
        """Replace the record if it is unchanged since the read, and record the time in the state before.

        Returns:
            The record as it is now; None if another process was faster.
        """
        new, passed = time_in_state.kept(seen.record, new, seen.now)
        changes = _changes(seen.raw, encode(new))
        if new.legacy_open is not None:
            # An older writer's claim about the breaker is not decided here: it is kept for the evaluation.
            changes.pop("circuit_breaker_open", None)
        fresh = new.transitions[-1:] if seen.record is None or new.epoch != seen.record.epoch else ()
        history = [text for change in fresh for text in (str(change.epoch), json_text(_entry(change)))]
        done, began = await self._run(
            COMMIT,
            {self.keys.state: True, self.keys.history: fresh},
            [
                json_text({name: seen.raw.get(name, "") for name in _guards(changes, seen.raw)}),
                json_text(changes),
                _life_s(new, seen.now),
                self.keys.events,
                self._event(new) if fresh or _is_news(changes) else "",
                json_text([time_counters(day) for day in passed.values()]),
                int(seen.now),
                len(fresh),
                *history,
            ],
            [self.keys.metrics(midnight) for midnight in passed],
        )
        if not done:
            return None
        new = replace(new, version=new.version + 1)
        return replace(new, epoch=int(began), begun=int(began)) if began else new

    @reads_state
    async def permit(
        self, owner: str, known: Seen, policy: Policy, *, renews: bool = False
    ) -> tuple[bool | None, Seen]:
        """Take one of the fleet's permits for *owner*, or renew its own, if nothing else is due.

        Args:
            owner: Owner of the permit.
            known: The known state: for a later epoch, nothing is decided.
            policy: Number and lease of the permits.
            renews: Only renew it.

        Returns:
            Whether *owner* has one now, None if the rules have to decide; and the state by then.
        """
        verdict, seconds, micros, values = await self._run(
            PERMIT,
            {self.keys.state: True},
            [
                owner,
                f"{policy.permit_lease_s:.6f}",
                policy.permits,
                known.record.epoch if known.record else 0,
                0 if renews else 1,
                _life_s(known.record, known.now) if known.record else STATE_LIFE_S,
                json_text(FIELDS),
                f"{trial_calls.half_open_since(known.record) if known.record else 0:.6f}",
                f"{policy.next_trial_s:.6f}",
            ],
        )
        seen = replace(_seen((seconds, micros), values, {}), models=known.models)
        return {"taken": True, "refused": False}.get(verdict), seen

    async def answer(self, question: Question, reporter: str, calls: int) -> None:
        """Record how many calls of *reporter* contradict the failures, once."""
        await self._run(ANSWER, {self.keys.state: True}, [question.number, reporter, calls])

    @reads_state
    async def change(self, decide: Decide, seen: Seen | None = None) -> Seen:
        """Read, decide, try to write; a slower process reads and decides again.

        Args:
            decide: Maps the record to its successor.
            seen: A recent read, if any: the first decision is on it.

        Raises:
            StoreContended: If other processes were faster every time.
        """
        for _ in range(_TRIES):
            seen = seen or await self.read()
            new = decide(seen.record, seen.now)
            if new is None or new == seen.record:
                return seen
            done = await self.commit(seen, new)
            if done is not None:
                return seen.became(done)
            seen = None
        raise StoreContended(f"the state of scope {self.keys.scope!r} changed {_TRIES} times while we decided")

    async def keep_time(self) -> None:
        """Record the time in the current state, unless it was just recorded."""
        await self.change(lambda record, now: record and time_in_state.put_down(record, now))

    async def listen(self) -> AsyncGenerator[str, None]:
        """Wake once when listening has begun, then at each change; raises when the connection fails.

        Yields:
            The message about the change, of simultaneous ones the last. Empty at first, and if it does not name this
            database: all databases of a server share their channels.
        """
        async with aclosing(self._connection.listen(self.keys.events)) as wakes:
            async for message in wakes:
                yield message if push_message.is_of(message, self._database) else ""

    def _event(self, record: SharedState) -> str:
        fields = encode(record)
        names = ["epoch", "breaker", "open_until", "reason", *(["question"] if fields.get("question") else [])]
        where = {"scope": self.keys.scope, "database": str(self._database)}
        return json_text(where | {name: fields[name] for name in names})


def _life_s(record: SharedState, now: float) -> int:
    """Return the lifetime of the hash.

    Each commit restarts it, and while calls wait a process commits every minute.
    """
    waits, breaker = record.kept_until(now), record.breaker
    is_calm = isinstance(breaker, Closed) and record.override is None and waits <= now
    return STATE_LIFE_S if is_calm else math.ceil(max(waits - now, 0.0)) + WAITING_LIFE_S


def _seen(time: Sequence[int | str], values: Sequence[str | None], models: Mapping[str, str]) -> Seen:
    raw = {name: value for name, value in zip(FIELDS, values, strict=True) if value is not None}
    now = int(time[0]) + int(time[1]) / 1e6
    return Seen(parse(raw, now) if raw else None, now, raw, parse_models(models, now))


def _changes(raw: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    changes = {name: value for name, value in wanted.items() if raw.get(name, "") != value}
    for name in ("run", "run_shares", "run_evidence", "run_earlier"):
        # Only the script counts them: except to end a run, writing them would undo counts made since.
        if raw.get(name) and changes.get(name):
            del changes[name]
    return changes


def _guards(changes: Mapping[str, str], raw: Mapping[str, str]) -> list[str]:
    # No time is recorded twice; and a change that records none need not wait for one that does.
    guards = (*GUARDS, "timed_until") if "timed_until" in changes else GUARDS
    # Invalid text never compares as unchanged: until it is overwritten, it guards nothing.
    return [name for name in guards if DAMAGED not in raw.get(name, "")]


def _is_news(changes: Mapping[str, str]) -> bool:
    """Return whether listeners need to read: not for a permit or a counter."""
    return not changes.keys().isdisjoint(_NEWS)


def _entry(change: Transition) -> list[str]:
    return [
        "from", change.before.value, "to", change.after.value, "reason", change.reason,
        "by", change.by, "at", iso(change.at),
    ]  # fmt: skip


def _fields_of_run(run: Run) -> dict[str, object]:
    return {"ended": run.ended, "failures": run.failures, "until_s": run.until, "reason": run.reason}
