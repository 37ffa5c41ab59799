"""State of single models that fail while others work, and of the ``:free`` models, which share a cap.

The store counts, as for the fleet; whether a model cools down follows from the count and the time. All times are Unix
seconds of the Redis server's clock.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias

from .backoff import Backoff
from .breaker import Policy
from .parsing import CLOCK_S, DAMAGED, YEAR_2000_S, number, whole
from .redaction import cached, redact
from .refusal import Refusal
from .signals import MAX_WAIT_S, Effect, OpenRouterState, Signal, SignalScope

__all__ = [
    "FREE",
    "Model",
    "Models",
    "Notes",
    "Run",
    "are_any_back",
    "back_since",
    "clean",
    "cooling",
    "model_refusal",
    "model_of",
    "lost",
    "name_of",
    "of_fleet",
    "parse",
    "run_of",
]

FREE = ":free"
"""The common name of all models whose names end in it."""
SEEN_S = 600.0
"""A model without calls for this long is dropped."""
TELL_S = 60.0
"""How often a working model is reported as still in use."""
POOL_S = 5.0
"""The wait for a full pool of a provider without a time of its own."""
FAILING_S = 60.0
"""How long a model's last failure is relevant."""
NAME_MOST = 128
"""Characters of a name; the longest at OpenRouter have 70."""
KEPT = 500
"""Number of models kept: those that wait, then those that fail, the most recent first, and"""
FINE_KEPT = 20
"""at most this many of those that work. The rules only ask whether any works."""
TOLD_MOST = 100
"""A batch reports at most this many models: if more fail at once, it is not their fault."""
MODEL_MOST = 2048
FAILURES_MOST = 10**6
WAIT_MOST_S = MAX_WAIT_S + CLOCK_S
_FIELD = re.compile(r'"([A-Za-z_]+)"\s*:\s*("?)([^",{}\[\]]*)', re.ASCII)
_SPACE = " \t\n\r\f\v"
_WORD = re.compile(r"\w{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Model:
    """The state of one model.

    Attributes:
        seen_at: End of the last call to it.
        failures: Failures of its providers in a row.
        failed_at: Time of the last one.
        until: End of the wait that the upstream named; 0 without one.
        reason: The reason, an error type.
    """

    seen_at: float = 0.0
    failures: int = 0
    failed_at: float = 0.0
    until: float = 0.0
    reason: str = ""


Models: TypeAlias = Mapping[str, Model]


@dataclass(slots=True)
class Run:
    """The results of one model in a batch: whether one succeeded, and how many failed after the last success."""

    ended: bool = False
    failures: int = 0
    until: float = 0.0
    reason: str = ""

    def add(self, other: Run) -> None:
        self.ended = self.ended or other.ended
        self.failures = other.failures + (0 if other.ended else self.failures)
        self.until = max(self.until, other.until)
        self.reason = other.reason or self.reason


def clean(name: object) -> str:
    r"""Return a model's name as stored: users type it, so it may be anything.

    Normalised to one form of Unicode, without secrets and unprintable characters, and cut at the limit; empty if
    nothing is left. A leading colon is reserved: see :data:`FREE`.

    >>> [clean(name) for name in ("openai/gpt-4o", " a\x00b ", "half \ud83d", ":free", 7)]
    ['openai/gpt-4o', 'a\ufffdb', 'half \ufffd', 'free', '']
    """
    return _clean(name[: 2 * NAME_MOST]) if isinstance(name, str) else ""


@cached
def _clean(name: str) -> str:
    if not (name.isascii() and name.isprintable()):
        name = unicodedata.normalize("NFC", name)
        name = "".join(char if char.isprintable() else DAMAGED for char in name)
    return redact(name.strip().lstrip(": "))[:NAME_MOST].rstrip()


def name_of(signal: Signal, model: str) -> str:
    """Return the subject of a result: its model, or all free ones; empty if unknown."""
    return FREE if signal.about is SignalScope.FREE_MODELS else clean(model)


def run_of(signal: Signal, now: float) -> Run:
    """One result as a run."""
    if signal.effect is Effect.SUCCESS:
        return Run(ended=True)
    if signal.about is SignalScope.ACCOUNT:
        return Run()
    is_failure = signal.effect is not Effect.NEUTRAL
    wait_s = signal.wait_s or (0.0 if is_failure else POOL_S)
    return Run(False, int(is_failure), now + wait_s if wait_s else 0.0, str(signal.error_type or ""))


class Notes:
    """The known state of single models while results are noted, one after the other.

    Each result takes the same time, however many models there are.

    Attributes:
        models: The current state; the initial one is not changed.
    """

    def __init__(self, models: Models, now: float) -> None:
        self.models = models
        self._own: dict[str, Model] | None = None
        self._room: int | None = None
        self._now = now

    def is_news(self, name: str, run: Run, at: float) -> bool:
        """Return whether a run should be reported to the fleet."""
        if run.failures or run.until:
            return True
        if not run.ended:
            return False
        known = self.models.get(name)
        if known is None:
            return self._has_room
        return at - known.seen_at > TELL_S or known.failures > 0

    def note(self, name: str, run: Run, at: float) -> None:
        """Count a run as the store's script does."""
        own = dict(self.models) if self._own is None else self._own
        if self._room is not None and name not in own:
            self._room -= 1
        own[name] = _after(own.get(name, Model()), run, at)
        self.models = self._own = _kept(own, at) if len(own) > 2 * KEPT else own

    def take(self, signal: Signal, model: str, at: float) -> tuple[Signal, dict[str, Run]]:
        """Note the result of a call to *model* (empty: unknown), if it is news.

        Returns:
            Its signal for the fleet; and the news of the model, by its name: empty if there is nothing to report.
        """
        name, run = name_of(signal, model), run_of(signal, at)
        if not name or not self.is_news(name, run, at):
            return signal, {}
        self.note(name, run, at)
        return of_fleet(signal, self.models, at), {name: run}

    @property
    def _has_room(self) -> bool:
        """Return whether one more working model matters: not if many work."""
        if self._room is None:
            begins_at, known = self._now - 2 * TELL_S, self.models.values()
            self._room = FINE_KEPT - sum(not model.failures and model.seen_at > begins_at for model in known)
        return self._room > 0


def _after(known: Model, run: Run, at: float) -> Model:
    return replace(
        known,
        seen_at=at,
        failures=min(run.failures + (0 if run.ended else known.failures), FAILURES_MOST),
        failed_at=at if run.failures else known.failed_at,
        until=max(known.until, run.until),
        reason=run.reason or known.reason,
    )


def of_fleet(signal: Signal, models: Models, now: float) -> Signal:
    """Return the meaning for the fleet of a failure of one model's providers, already noted in *models*.

    It counts for the upstream only if a second model fails in the same way, or every model in use does.
    """
    if signal.about is not SignalScope.MODEL or signal.effect is not Effect.FAILURE:
        return signal
    in_use = [model for name, model in models.items() if name != FREE and now - model.seen_at <= SEEN_S]
    failing = [model for model in in_use if model.failures and now - model.failed_at <= FAILING_S]
    counts = len(failing) >= 2 or len(failing) == len(in_use)
    return signal if counts else replace(signal, effect=Effect.MODEL)


def model_refusal(models: Models, model: str, *, now: float, policy: Policy) -> Refusal | None:
    """Return the refusal of calls to *model*; None if they may go."""
    name = model if model == FREE else clean(model)
    names = (name, FREE) if name.endswith(FREE) else (name,)
    ends = [(_until(models[name], policy), models[name].reason) for name in names if name in models]
    until, reason = max(ends, default=(0.0, ""))
    return Refusal(until - now, reason or OpenRouterState.ERROR.value) if until > now else None


def cooling(models: Models, *, now: float, policy: Policy) -> dict[str, tuple[float, str]]:
    """Return the models whose calls must wait, each with the end and the reason."""
    found = {name: (_until(model, policy), model.reason) for name, model in models.items()}
    return {name: end for name, end in found.items() if end[0] > now}


def back_since(models: Models, model: str, *, now: float, policy: Policy) -> tuple[float, bool] | None:
    """Return the end of *model*'s wait, and whether no call to it has succeeded since; None if it was not recent.

    A success of a single free model says nothing about their shared cap.
    """
    name = model if model == FREE else clean(model)
    names = [name for name in ((name, FREE) if name.endswith(FREE) else (name,)) if name in models]
    backs = [(_until(models[name], policy), name != FREE and models[name].failures > 0) for name in names]
    return max((back for back in backs if _is_lately(back[0], now, policy)), default=None)


def are_any_back(models: Models, *, now: float, policy: Policy) -> bool:
    """Return whether the wait of any of them ended recently."""
    return any(_is_lately(_until(model, policy), now, policy) for model in models.values())


def _is_lately(until: float, now: float, policy: Policy) -> bool:
    """Recent: as long as its first success may begin a ramp, and the ramp may last."""
    return 0 <= now - until < 2 * policy.ramp_s


def lost(known: Models, seen: Models, *, now: float, policy: Policy) -> Models:
    """Return the known cooldowns that are missing from the stored ones; not their counts of failures."""
    if known is seen or len(seen) >= KEPT:
        return {}
    ends = cooling(known, now=now, policy=policy)
    return {name: Model(now, until=end[0], reason=end[1]) for name, end in ends.items() if name not in seen}


def _until(model: Model, policy: Policy) -> float:
    """A single failure causes no wait: at one in ten, a busy model would never be called again."""
    beyond = model.failures - policy.failure_threshold
    if beyond < 0:
        return model.until
    cooldown_s = Backoff(policy.cooldown_s, policy.max_cooldown_s).wait_s(beyond + 1)
    return max(model.until, model.failed_at + cooldown_s)


def parse(hash_: Mapping[str, str], now: float) -> Models:
    """Return the models in the hash at *now* by Redis' clock, without irrelevant ones."""
    read = {name: model_of(text, now) for name, text in hash_.items() if name and name in (FREE, clean(name))}
    return _kept(read, now)


def model_of(entry: str, now: float) -> Model:
    """Return one entry of the hash; values that are invalid or out of bounds count as absent.

    The script in Redis reads it too, and must see the same. JSON readers differ over ``nan``, ``0x10`` and 1e400, so
    an entry is treated as the flat list of fields that it is.
    """
    read = _read(entry)
    latest = now + CLOCK_S
    if read.seen_at <= latest and read.failed_at <= latest and read.until <= now + WAIT_MOST_S:
        return read
    return replace(
        read,
        seen_at=read.seen_at if read.seen_at <= latest else 0.0,
        failed_at=read.failed_at if read.failed_at <= latest else 0.0,
        until=read.until if read.until <= now + WAIT_MOST_S else 0.0,
    )


@lru_cache(maxsize=2 * KEPT)
def _read(entry: str) -> Model:
    """Return an entry without regard to the time."""
    found = {name: (quote, value.strip(_SPACE)) for name, quote, value in _fields_of(entry)}
    text = {name: value for name, (_, value) in found.items()}
    quote, reason = found.get("reason", ("", ""))
    return Model(
        seen_at=number(text.get("seen_s"), YEAR_2000_S, math.inf) or 0.0,
        failures=whole(text.get("failures"), FAILURES_MOST),
        failed_at=number(text.get("failed_s"), YEAR_2000_S, math.inf) or 0.0,
        until=number(text.get("until_s"), YEAR_2000_S, math.inf) or 0.0,
        reason=reason if quote and _WORD.fullmatch(reason) else "",
    )


def _fields_of(entry: str) -> Iterable[tuple[str, str, str]]:
    return _FIELD.findall(entry) if len(entry) <= MODEL_MOST else ()


def _kept(models: Models, now: float) -> dict[str, Model]:
    """Return the models to keep, as the script in Redis does."""
    kept = {name: model for name, model in models.items() if _waits(model, now) or model.seen_at > now - SEEN_S}
    if len(kept) <= FINE_KEPT:
        return kept
    ranked = sorted(kept, key=lambda name: (not _waits(kept[name], now), -kept[name].seen_at, name))
    fine = [name for name in ranked if not (kept[name].failures or _waits(kept[name], now))]
    beyond = {*fine[FINE_KEPT:], *[name for name in ranked if name not in set(fine)][KEPT - FINE_KEPT :]}
    return {name: model for name, model in kept.items() if name not in beyond}


def _waits(model: Model, now: float) -> bool:
    return model.until > now
