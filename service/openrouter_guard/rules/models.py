"""Single models that fail while others work, and the ``:free`` models, which share a cap.

The store counts, as it does for the fleet; whether a model is cooling down follows from the count and the time. All
times are Unix seconds of the Redis server's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from .breaker import Policy
from .parsing import CLOCK_S, json_of, moment_s, text_of, whole
from .signals import MAX_WAIT_S, About, Effect, OpenRouterState, Signal

__all__ = [
    "FREE",
    "Model",
    "Models",
    "Run",
    "cooling",
    "cooling_s",
    "is_news",
    "name_of",
    "noted",
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
MODEL_MOST = 2048
REASON_MOST = 64
FAILURES_MOST = 10**6


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


def name_of(signal: Signal, model: str) -> str:
    """Whom a result is about: its model, or all that are free; empty if nobody knows."""
    if signal.about is About.FREE_MODELS:
        return FREE
    return model


def run_of(signal: Signal, now_s: float) -> Run:
    """One result as a run."""
    if signal.effect is Effect.SUCCESS:
        return Run(ended=True)
    if signal.about is About.ACCOUNT:
        return Run()
    is_failure = signal.effect is not Effect.NEUTRAL
    wait_s = signal.wait_s or (0.0 if is_failure else POOL_S)
    return Run(False, int(is_failure), now_s + wait_s if wait_s else 0.0, str(signal.error_type or ""))


def is_news(models: Models, name: str, run: Run, now_s: float) -> bool:
    """Whether a run is worth telling the fleet."""
    known = models.get(name)
    if known is None or run.failures or run.until_s:
        return True
    return now_s - known.seen_s > TELL_S or (run.ended and known.failures > 0)


def noted(models: Models, name: str, run: Run, now_s: float) -> Models:
    """The models after a run, counted as the store's script counts it."""
    known = models.get(name, Model())
    failures = run.failures + (0 if run.ended else known.failures)
    after = replace(
        known,
        seen_s=now_s,
        failures=failures,
        failed_s=now_s if run.failures else known.failed_s,
        until_s=max(known.until_s, run.until_s),
        reason=run.reason or known.reason,
    )
    return {**models, name: after}


def of_fleet(signal: Signal, models: Models, now_s: float) -> Signal:
    """What a failure of one model's providers means for the fleet, once it is among *models*.

    Only where a second model fails so as well, or every model that is in use does, is it one of the upstream.
    """
    if signal.about is not About.MODEL or signal.effect is not Effect.FAILURE:
        return signal
    in_use = [model for name, model in models.items() if name != FREE and now_s - model.seen_s <= SEEN_S]
    failing = [model for model in in_use if model.failures and now_s - model.failed_s <= FAILING_S]
    counts = len(failing) >= 2 or len(failing) == len(in_use)
    return signal if counts else replace(signal, effect=Effect.MODEL)


def cooling_s(models: Models, model: str, *, now_s: float, policy: Policy) -> tuple[float, str] | None:
    """How long calls to *model* must wait and why, None if they may go."""
    names = (model, FREE) if model.endswith(FREE) else (model,)
    ends = [(_until_s(models[name], policy), models[name].reason) for name in names if name in models]
    until_s, reason = max(ends, default=(0.0, ""))
    return (until_s - now_s, reason or OpenRouterState.ERROR.value) if until_s > now_s else None


def cooling(models: Models, *, now_s: float, policy: Policy) -> dict[str, tuple[float, str]]:
    """The models whose calls must wait, until when and why."""
    found = {name: (_until_s(model, policy), model.reason) for name, model in models.items()}
    return {name: end for name, end in found.items() if end[0] > now_s}


def _until_s(model: Model, policy: Policy) -> float:
    """A single failure holds nobody back: at one in ten, a busy model would never be called again."""
    beyond = model.failures - policy.failure_threshold
    if beyond < 0:
        return model.until_s
    wait_s = float(min(policy.cooldown_s * 2 ** min(beyond, 30), policy.max_cooldown_s))
    return max(model.until_s, model.failed_s + wait_s)


def parse(hash_: Mapping[str, str], now_s: float) -> Models:
    """The models in the hash at *now_s* by Redis' clock; what cannot be read is left out."""
    return {name: model for name, text in hash_.items() if (model := _model(text, now_s)) is not None}


def _model(text: str, now_s: float) -> Model | None:
    row = json_of(text, MODEL_MOST)
    if not isinstance(row, dict):
        return None
    return Model(
        seen_s=moment_s(row.get("seen_s"), now_s),
        failures=whole(row.get("failures"), FAILURES_MOST),
        failed_s=moment_s(row.get("failed_s"), now_s),
        until_s=moment_s(row.get("until_s"), now_s, MAX_WAIT_S + CLOCK_S),
        reason=text_of(row.get("reason"), REASON_MOST),
    )
