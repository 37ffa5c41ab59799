"""The state as a small picture, for a README or a dashboard."""

from __future__ import annotations

from html import escape

from openrouter_guard.replica import Snapshot
from openrouter_guard.rules.admission import fleet_refusal
from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.rules.signals import OpenRouterState

from .freshness import is_known

__all__ = ["KEEP_S", "svg", "words"]

KEEP_S = 30
_GREEN, _YELLOW, _RED, _GREY = "#2e7d32", "#8f5600", "#c62828", "#5f6368"
_OF_THE_ACCOUNT = frozenset({OpenRouterState.API_KEY_INVALID, OpenRouterState.CREDITS_EXHAUSTED})
_CHARACTER_PX = 7
_PADDING_PX = 6
_HEIGHT_PX = 20


def words(view: Snapshot) -> tuple[str, str]:
    """The text and the colour; each text has a contrast of 4.5 or more."""
    if view.record is None or view.is_degraded:
        return "unknown", _GREY
    record, now = view.record, view.now
    match record.phase(now):
        case BreakerState.OPEN:
            return _plain(_reason(record, now)), _RED
        case BreakerState.HALF_OPEN:
            return "recovering", _YELLOW
        case _ if fleet_refusal(record, now):
            return "rate limited", _YELLOW
        case _ if not is_known(record) or record.upstream.state is OpenRouterState.API_KEY_MISSING:
            return "unknown", _GREY
        case _ if record.breaker.failures or record.upstream.state in _OF_THE_ACCOUNT:
            return "failing", _YELLOW
        case _:
            return "up", _GREEN


def svg(label: str, text: str, colour: str) -> str:
    """Two fields side by side; a screen reader reads both."""
    left, right = _width_px(label), _width_px(text)
    said = escape(f"{label}: {text}", quote=True)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="{_HEIGHT_PX}" role="img" '
        f'aria-label="{said}"><title>{said}</title>'
        f'<rect width="{left}" height="{_HEIGHT_PX}" fill="#3c4043"/>'
        f'<rect x="{left}" width="{right}" height="{_HEIGHT_PX}" fill="{colour}"/>'
        f'<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">'
        f'<text x="{left / 2:g}" y="14">{escape(label)}</text>'
        f'<text x="{left + right / 2:g}" y="14">{escape(text)}</text></g></svg>'
    )


def _reason(record: SharedState, now: float) -> str:
    refused = fleet_refusal(record, now)
    return refused.reason if refused else BreakerState.OPEN.value


def _plain(reason: str) -> str:
    """Return an error type as readable text."""
    return str(reason or BreakerState.OPEN.value).replace("_", " ")


def _width_px(text: str) -> int:
    return len(text) * _CHARACTER_PX + 2 * _PADDING_PX
