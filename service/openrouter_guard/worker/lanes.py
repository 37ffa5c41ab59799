"""Distributes the starts of this process while the fleet, or one model, comes back."""

from __future__ import annotations

from . import grants
from .lane import Lane
from .view import View

__all__ = ["Lanes"]

MODELS_MOST = 64
"""Number of recovering models whose starts are counted; with more, counting restarts."""


class Lanes:
    """The starts of one process.

    Attributes:
        fleet: The lane of all calls.
    """

    def __init__(self) -> None:
        self.fleet = Lane()
        self._models: dict[str, Lane] = {}

    def wait_s(self, view: View, model: str) -> float:
        """Begin a call to *model* now if it is its turn; else return the seconds until then."""
        ramp = view.ramp
        if ramp is not None and not grants.taken(self.fleet) and (wait_s := self.fleet.enter(ramp, view.now)):
            return wait_s
        ramp = view.model_ramp(model)
        return self._of(model).enter(ramp, view.now) if ramp is not None else 0.0

    def _of(self, model: str) -> Lane:
        if len(self._models) >= MODELS_MOST:
            self._models.clear()
        return self._models.setdefault(model, Lane())
