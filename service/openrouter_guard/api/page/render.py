"""From what is known to HTML, and the files that the page loads; nothing comes from another host."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from openrouter_guard.version import package_version

from .view_model import Beside, PageModel, Tone, duration

__all__ = ["FILES", "File", "document_file", "render", "render_docs", "render_error"]


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
_OF_DOCUMENTS = {
    "swagger/swagger-ui-bundle.js": _SCRIPT,
    "swagger/docs.js": _SCRIPT,
    "swagger/swagger-ui.css": _STYLE,
}
_COLOURS = {Tone.GOOD: "#2fa36b", Tone.WARN: "#e0a030", Tone.BAD: "#d9534a", Tone.UNKNOWN: "#8a94a0"}
_ICON = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><circle cx="8" cy="8" r="7" fill="{}"/></svg>'

_folder = resources.files(__package__).joinpath("static")
FILES: dict[str, File] = {
    **{name: File(_folder.joinpath(name).read_bytes(), kind) for name, kind in _STATIC.items()},
    **{f"{tone}.svg": File(_ICON.format(colour).encode(), _PICTURE) for tone, colour in _COLOURS.items()},
}
"""By their path below ``page/``."""


def document_file(name: str) -> File | None:
    """What the page of the API loads. It is large and seldom asked for, so it is not kept in memory."""
    kind = _OF_DOCUMENTS.get(name)
    return None if kind is None else File(_folder.joinpath(name).read_bytes(), kind)


_environment = Environment(
    loader=PackageLoader(__package__ or "", "templates"),
    autoescape=select_autoescape(),
    undefined=StrictUndefined,
    trim_blocks=True,
)
_environment.filters["duration"] = duration


def render(view: PageModel, scopes: Sequence[Beside]) -> str:
    """The page of one scope, which leads to those beside it."""
    return _environment.get_template("page.html").render(view=view, scopes=scopes, version=package_version())


def render_error(title: str, detail: str, scopes: Sequence[str]) -> str:
    """What a browser is shown instead of a page that cannot be; *scopes* are those that there are."""
    return _environment.get_template("error.html").render(title=title, detail=detail, scopes=scopes)


def render_docs(title: str) -> str:
    """The API as a page to try it out."""
    return _environment.get_template("docs.html").render(title=title)
