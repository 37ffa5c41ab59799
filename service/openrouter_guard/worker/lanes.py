"""Who of this process begins a call while the fleet, or one model, comes back."""

from __future__ import annotations

from . import grants
from .lane import Lane
from .view import View

__all__ = ["Lanes"]

MODELS_MOST = 64
"""Of so many models that come back at once starts are counted; with more, anew."""


class Lanes:
    """Those of one process.

    Attributes:
        fleet: The one for all calls.
    """

    def __init__(self) -> None:
        self.fleet = Lane()
        self._models: dict[str, Lane] = {}

    def wait_s(self, view: View, model: str) -> float:
        """Begin a call to *model* now, if it is its turn; else after how many seconds it is."""
        ramp = view.ramp
        if ramp is not None and not grants.taken(self.fleet) and (wait_s := self.fleet.enter(ramp, view.now_s)):
            return wait_s
        ramp = view.model_ramp(model)
        return self._of(model).enter(ramp, view.now_s) if ramp is not None else 0.0

    def _of(self, model: str) -> Lane:
        if len(self._models) >= MODELS_MOST:
            self._models.clear()
        return self._models.setdefault(model, Lane())
