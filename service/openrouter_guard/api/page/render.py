"""From what is known to HTML, and the files that the page loads; nothing comes from another host."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from openrouter_guard.api.prometheus import package_version

from .board import Beside, Board, Tone, duration

__all__ = ["FILES", "File", "render"]


class File(NamedTuple):
    """What the page loads."""

    body: bytes
    media_type: str


_SCRIPT, _STYLE, _PICTURE = "text/javascript; charset=utf-8", "text/css; charset=utf-8", "image/svg+xml"
_STATIC = {
    "page.js": _SCRIPT,
    "page.css": _STYLE,
    "uplot/uPlot.iife.min.js": _SCRIPT,
    "uplot/uPlot.min.css": _STYLE,
}
_COLOURS = {Tone.GOOD: "#2fa36b", Tone.WARN: "#e0a030", Tone.BAD: "#d9534a", Tone.UNKNOWN: "#8a94a0"}
_ICON = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><circle cx="8" cy="8" r="7" fill="{}"/></svg>'

_folder = resources.files(__package__).joinpath("static")
FILES: dict[str, File] = {
    **{name: File(_folder.joinpath(name).read_bytes(), kind) for name, kind in _STATIC.items()},
    **{f"{tone}.svg": File(_ICON.format(colour).encode(), _PICTURE) for tone, colour in _COLOURS.items()},
}
"""By their path below ``page/``."""

_environment = Environment(
    loader=PackageLoader(__package__ or "", "templates"),
    autoescape=select_autoescape(),
    undefined=StrictUndefined,
    trim_blocks=True,
)
_environment.filters["duration"] = duration


def render(board: Board, scopes: Sequence[Beside]) -> str:
    """The page of one scope, which leads to those beside it."""
    return _environment.get_template("page.html").render(board=board, scopes=scopes, version=package_version())
