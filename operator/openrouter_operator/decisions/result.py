"""The result of one reconcile, from which the status and the events follow."""

from __future__ import annotations

from dataclasses import dataclass

from openrouter_guard.rules.codec import iso
from openrouter_operator.resource.spec import Spec

from .goal import Goal
from .snapshot import ScopeSnapshot
from .summary import Failure, TargetSummary

__all__ = ["Overriding", "ReconcileResult", "cause", "second"]


@dataclass(frozen=True, slots=True)
class Overriding:
    """The outcome of the override in a spec: the applied generation, or the error."""

    generation: int | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class ReconcileResult:
    """The result of one reconcile.

    Attributes:
        is_settled: Whether the goal is reached: no change is left.
        invalid: The reason why the spec cannot be carried out; empty if it can.
        took_s: Duration of its changes.
        would: Changes that a dry run would have made.
        override: Outcome of the override in the spec.
        dated_at: Time of that, Unix seconds by the API server's clock, which every process knows: a process that
            starts while Redis is away does not know Redis' clock, which the snapshot uses. None for the snapshot's
            time.
    """

    generation: int
    spec: Spec
    snapshot: ScopeSnapshot
    goal: Goal
    summary: TargetSummary
    is_settled: bool = True
    invalid: str = ""
    took_s: float = 0.0
    would: tuple[str, ...] = ()
    override: Overriding = Overriding()
    dated_at: float | None = None

    @property
    def ended_at(self) -> float:
        """When all was answered, by the clock of the snapshot with which the round began."""
        return self.snapshot.now + self.took_s


def cause(result: ReconcileResult) -> str:
    return result.snapshot.cause or result.goal.reason


def second(at: float) -> str:
    """Format whole seconds, as Kubernetes writes times; empty for never."""
    return iso(float(int(at))).replace("+00:00", "Z")
