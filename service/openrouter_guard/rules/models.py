"""Single models that fail while others work, and the ``:free`` models, which share a cap.

The store counts, as it does for the fleet; whether a model is cooling down follows from the count and the time. All
times are Unix seconds of the Redis server's clock.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias

from .breaker import Policy
from .parsing import CLOCK_S, DAMAGED, YEAR_2000_S, number, whole
from .redaction import cached, redact
from .signals import MAX_WAIT_S, Effect, OpenRouterState, Signal, SignalScope

__all__ = [
    "FREE",
    "Model",
    "Models",
    "Notes",
    "Run",
    "are_any_back",
    "back_since_s",
    "clean",
    "cooling",
    "cooling_s",
    "model_of",
    "lost",
    "name_of",
    "of_fleet",
    "parse",
    "run_of",
]

FREE = ":free"
"""The name under which all models whose name ends so are kept together."""
SEEN_S = 600.0
"""A model that was not called for so long is forgotten."""
TELL_S = 60.0
"""How often it is worth telling that a model that works is still called."""
POOL_S = 5.0
"""The wait for a provider whose pool is full and that does not say for how long."""
FAILING_S = 60.0
"""A model's last failure says something about now for so long."""
NAME_MOST = 128
"""Characters of a name; the longest at OpenRouter have 70."""
KEPT = 500
"""So many models are kept: those that wait, then those that fail, the latest seen first, and"""
FINE_KEPT = 20
"""of these so many that work. Whether any works is all that the rules ask for."""
TOLD_MOST = 100
"""Of so many models a batch tells at most: where more fail at once, it is not theirs."""
MODEL_MOST = 2048
FAILURES_MOST = 10**6
WAIT_MOST_S = MAX_WAIT_S + CLOCK_S
_FIELD = re.compile(r'"([A-Za-z_]+)"\s*:\s*("?)([^",{}\[\]]*)', re.ASCII)
_SPACE = " \t\n\r\f\v"
_WORD = re.compile(r"\w{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Model:
    """What is known of one model.

    Attributes:
        seen_s: When a call to it last ended.
        failures: Failures in a row that were of its providers.
        failed_s: The last of them.
        until_s: Calls are not permitted before, for the upstream said so; 0 if it did not.
        reason: Why, an error type.
    """

    seen_s: float = 0.0
    failures: int = 0
    failed_s: float = 0.0
    until_s: float = 0.0
    reason: str = ""


Models: TypeAlias = Mapping[str, Model]


@dataclass(slots=True)
class Run:
    """The results of one model in a batch: whether one succeeded, and how many failed after the last that did."""

    ended: bool = False
    failures: int = 0
    until_s: float = 0.0
    reason: str = ""

    def add(self, other: Run) -> None:
        self.ended = self.ended or other.ended
        self.failures = other.failures + (0 if other.ended else self.failures)
        self.until_s = max(self.until_s, other.until_s)
        self.reason = other.reason or self.reason


def clean(name: object) -> str:
    r"""A model's name as it is kept: users type it, so it may be anything.

    In one form of Unicode, without secrets and without what cannot be printed, cut where no name goes; empty if it
    is none. A colon at the beginning is ours: see :data:`FREE`.

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
    """Whom a result is about: its model, or all that are free; empty if nobody knows."""
    return FREE if signal.about is SignalScope.FREE_MODELS else clean(model)


def run_of(signal: Signal, now_s: float) -> Run:
    """One result as a run."""
    if signal.effect is Effect.SUCCESS:
        return Run(ended=True)
    if signal.about is SignalScope.ACCOUNT:
        return Run()
    is_failure = signal.effect is not Effect.NEUTRAL
    wait_s = signal.wait_s or (0.0 if is_failure else POOL_S)
    return Run(False, int(is_failure), now_s + wait_s if wait_s else 0.0, str(signal.error_type or ""))


class Notes:
    """What is known of single models while results are noted, one after the other.

    Each result takes the same time, however many models there are.

    Attributes:
        models: What is known by now; those that it began with stay as they are.
    """

    def __init__(self, models: Models, now_s: float) -> None:
        self.models = models
        self._own: dict[str, Model] | None = None
        self._room: int | None = None
        self._now_s = now_s

    def is_news(self, name: str, run: Run, at_s: float) -> bool:
        """Whether a run is worth telling the fleet."""
        if run.failures or run.until_s:
            return True
        if not run.ended:
            return False
        known = self.models.get(name)
        if known is None:
            return self._has_room
        return at_s - known.seen_s > TELL_S or known.failures > 0

    def note(self, name: str, run: Run, at_s: float) -> None:
        """Count a run as the store's script counts it."""
        own = dict(self.models) if self._own is None else self._own
        if self._room is not None and name not in own:
            self._room -= 1
        own[name] = _after(own.get(name, Model()), run, at_s)
        self.models = self._own = _kept(own, at_s) if len(own) > 2 * KEPT else own

    @property
    def _has_room(self) -> bool:
        """Whether one more that works says anything: where many do, no."""
        if self._room is None:
            begins_s, known = self._now_s - 2 * TELL_S, self.models.values()
            self._room = FINE_KEPT - sum(not model.failures and model.seen_s > begins_s for model in known)
        return self._room > 0


def _after(known: Model, run: Run, at_s: float) -> Model:
    return replace(
        known,
        seen_s=at_s,
        failures=run.failures + (0 if run.ended else known.failures),
        failed_s=at_s if run.failures else known.failed_s,
        until_s=max(known.until_s, run.until_s),
        reason=run.reason or known.reason,
    )


def of_fleet(signal: Signal, models: Models, now_s: float) -> Signal:
    """What a failure of one model's providers means for the fleet, once it is among *models*.

    Only where a second model fails so as well, or every model that is in use does, is it one of the upstream.
    """
    if signal.about is not SignalScope.MODEL or signal.effect is not Effect.FAILURE:
        return signal
    in_use = [model for name, model in models.items() if name != FREE and now_s - model.seen_s <= SEEN_S]
    failing = [model for model in in_use if model.failures and now_s - model.failed_s <= FAILING_S]
    counts = len(failing) >= 2 or len(failing) == len(in_use)
    return signal if counts else replace(signal, effect=Effect.MODEL)


def cooling_s(models: Models, model: str, *, now_s: float, policy: Policy) -> tuple[float, str] | None:
    """How long calls to *model* must wait and why, None if they may go."""
    name = model if model == FREE else clean(model)
    names = (name, FREE) if name.endswith(FREE) else (name,)
    ends = [(_until_s(models[name], policy), models[name].reason) for name in names if name in models]
    until_s, reason = max(ends, default=(0.0, ""))
    return (until_s - now_s, reason or OpenRouterState.ERROR.value) if until_s > now_s else None


def cooling(models: Models, *, now_s: float, policy: Policy) -> dict[str, tuple[float, str]]:
    """The models whose calls must wait, until when and why."""
    found = {name: (_until_s(model, policy), model.reason) for name, model in models.items()}
    return {name: end for name, end in found.items() if end[0] > now_s}


def back_since_s(models: Models, model: str, *, now_s: float, policy: Policy) -> tuple[float, bool] | None:
    """When the wait of *model* was over, and whether no call to it has succeeded since; None if it was not lately.

    Of the cap of the free models no success of a single one tells.
    """
    name = model if model == FREE else clean(model)
    names = [name for name in ((name, FREE) if name.endswith(FREE) else (name,)) if name in models]
    backs = [(_until_s(models[name], policy), name != FREE and models[name].failures > 0) for name in names]
    return max((back for back in backs if _is_lately(back[0], now_s, policy)), default=None)


def are_any_back(models: Models, *, now_s: float, policy: Policy) -> bool:
    """Whether the wait of any of them was over lately."""
    return any(_is_lately(_until_s(model, policy), now_s, policy) for model in models.values())


def _is_lately(until_s: float, now_s: float, policy: Policy) -> bool:
    """For as long as its first success may begin a ramp, and that may last."""
    return 0 <= now_s - until_s < 2 * policy.ramp_s


def lost(known: Models, seen: Models, *, now_s: float, policy: Policy) -> Models:
    """The models that are known to cool down, and that are missing from what is there; not how often they failed."""
    if known is seen or len(seen) >= KEPT:
        return {}
    ends = cooling(known, now_s=now_s, policy=policy)
    return {name: Model(now_s, until_s=end[0], reason=end[1]) for name, end in ends.items() if name not in seen}


def _until_s(model: Model, policy: Policy) -> float:
    """A single failure holds nobody back: at one in ten, a busy model would never be called again."""
    beyond = model.failures - policy.failure_threshold
    if beyond < 0:
        return model.until_s
    wait_s = float(min(policy.cooldown_s * 2 ** min(beyond, 30), policy.max_cooldown_s))
    return max(model.until_s, model.failed_s + wait_s)


def parse(hash_: Mapping[str, str], now_s: float) -> Models:
    """The models in the hash at *now_s* by Redis' clock, without those that are not worth keeping."""
    read = {name: model_of(text, now_s) for name, text in hash_.items() if name and name in (FREE, clean(name))}
    return _kept(read, now_s)


def model_of(entry: str, now_s: float) -> Model:
    """One entry of the hash; what cannot be read in it, or is out of its bounds, is taken as absent.

    The script in Redis reads it too, and must see the same. JSON readers differ over ``nan``, ``0x10`` and 1e400, so
    an entry is taken as the flat list of fields that it is.
    """
    read = _read(entry)
    latest_s = now_s + CLOCK_S
    if read.seen_s <= latest_s and read.failed_s <= latest_s and read.until_s <= now_s + WAIT_MOST_S:
        return read
    return replace(
        read,
        seen_s=read.seen_s if read.seen_s <= latest_s else 0.0,
        failed_s=read.failed_s if read.failed_s <= latest_s else 0.0,
        until_s=read.until_s if read.until_s <= now_s + WAIT_MOST_S else 0.0,
    )


@lru_cache(maxsize=2 * KEPT)
def _read(entry: str) -> Model:
    """An entry without regard to what time it is."""
    found = {name: (quote, value.strip(_SPACE)) for name, quote, value in _fields_of(entry)}
    text = {name: value for name, (_, value) in found.items()}
    quote, reason = found.get("reason", ("", ""))
    return Model(
        seen_s=number(text.get("seen_s"), YEAR_2000_S, math.inf) or 0.0,
        failures=whole(text.get("failures"), FAILURES_MOST),
        failed_s=number(text.get("failed_s"), YEAR_2000_S, math.inf) or 0.0,
        until_s=number(text.get("until_s"), YEAR_2000_S, math.inf) or 0.0,
        reason=reason if quote and _WORD.fullmatch(reason) else "",
    )


def _fields_of(entry: str) -> Iterable[tuple[str, str, str]]:
    return _FIELD.findall(entry) if len(entry) <= MODEL_MOST else ()


def _kept(models: Models, now_s: float) -> dict[str, Model]:
    """Those that are worth keeping, as the script in Redis keeps them."""
    kept = {name: model for name, model in models.items() if _waits(model, now_s) or model.seen_s > now_s - SEEN_S}
    if len(kept) <= FINE_KEPT:
        return kept
    ranked = sorted(kept, key=lambda name: (not _waits(kept[name], now_s), -kept[name].seen_s, name))
    fine = [name for name in ranked if not (kept[name].failures or _waits(kept[name], now_s))]
    beyond = {*fine[FINE_KEPT:], *[name for name in ranked if name not in set(fine)][KEPT - FINE_KEPT :]}
    return {name: model for name, model in kept.items() if name not in beyond}


def _waits(model: Model, now_s: float) -> bool:
    return model.until_s > now_s
