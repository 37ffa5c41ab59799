"""Renders the page as HTML, with its files; nothing comes from another host."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from openrouter_guard.version import package_version

from .view_model import Beside, PageModel, Tone, duration

__all__ = ["FILES", "File", "document_file", "render", "render_docs", "render_error"]


class File(NamedTuple):
    """A file of the page."""

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
"""Files by their path below ``page/``."""


def document_file(name: str) -> File | None:
    """Files of the API page. They are large and rarely requested, so only the first request loads one."""
    return _loaded(name) if name in _OF_DOCUMENTS else None


@functools.cache
def _loaded(name: str) -> File:
    return File(_folder.joinpath(name).read_bytes(), _OF_DOCUMENTS[name])


_environment = Environment(
    loader=PackageLoader(__package__ or "", "templates"),
    autoescape=select_autoescape(),
    undefined=StrictUndefined,
    trim_blocks=True,
)
_environment.filters["duration"] = duration


def render(view: PageModel, scopes: Sequence[Beside]) -> str:
    """Render the page of one scope, with links to the other scopes."""
    return _environment.get_template("page.html").render(view=view, scopes=scopes, version=package_version())


def render_error(title: str, detail: str, scopes: Sequence[str]) -> str:
    """Render an error page; *scopes* lists the available scopes."""
    return _environment.get_template("error.html").render(title=title, detail=detail, scopes=scopes)


def render_docs(title: str) -> str:
    """Render the API documentation page."""
    return _environment.get_template("docs.html").render(title=title)
