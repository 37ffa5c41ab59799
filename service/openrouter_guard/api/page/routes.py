"""The page and the files that it loads; nothing comes from another host."""

from __future__ import annotations

from importlib import resources

from fastapi import APIRouter, Request
from fastapi.responses import Response
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from openrouter_guard.api.prometheus import package_version
from openrouter_guard.api.service import Service

from .board import Board, Tone, duration
from .gather import gather

__all__ = ["router"]

router = APIRouter(include_in_schema=False)

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}
_FILES = ("page.js", "page.css", "uplot/uPlot.iife.min.js", "uplot/uPlot.min.css")
_COLOURS = {Tone.GOOD: "#2fa36b", Tone.WARN: "#e0a030", Tone.BAD: "#d9534a", Tone.UNKNOWN: "#8a94a0"}
_ICON = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><circle cx="8" cy="8" r="7" fill="{}"/></svg>'

_environment = Environment(
    loader=PackageLoader(__package__ or "", "templates"),
    autoescape=select_autoescape(),
    undefined=StrictUndefined,
    trim_blocks=True,
)
_environment.filters["duration"] = duration


@router.get("/")
async def page(request: Request) -> Response:
    service: Service = request.app.state.service
    return Response(
        render(await gather(service)),
        media_type="text/html; charset=utf-8",
        headers={"Content-Security-Policy": _POLICY},
    )


def render(board: Board) -> str:
    return _environment.get_template("page.html").render(board=board, version=package_version())


def _serve(path: str, body: bytes, media_type: str) -> None:
    async def found() -> Response:
        return Response(body, media_type=media_type)

    router.add_api_route(f"/page/{path}", found)


_static = resources.files(__package__).joinpath("static")
for _name in _FILES:
    _serve(_name, _static.joinpath(_name).read_bytes(), _TYPES[_name[_name.rindex(".") :]])
for _tone, _colour in _COLOURS.items():
    _serve(f"{_tone}.svg", _ICON.format(_colour).encode(), "image/svg+xml")
