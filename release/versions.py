"""The version of a release, which several files name."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

__all__ = ["ROOT", "ReleaseError", "checked_version", "named_versions"]

ROOT = Path(__file__).parents[1]


class ReleaseError(Exception):
    """A file has to change before the release."""


def named_versions() -> dict[str, str]:
    """Return the version by the place that names it."""
    chart = (ROOT / "charts" / "openrouter-guard" / "Chart.yaml").read_text()
    return {
        "pyproject.toml": tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"],
        "version in Chart.yaml": _found(r"^version: (\S+)", chart),
        "appVersion in Chart.yaml": _found(r"^appVersion: (\S+)", chart),
        "VERSION in Dockerfile": _found(r"^ARG VERSION=(\S+)", (ROOT / "Dockerfile").read_text()),
    }


def checked_version(tag: str | None) -> str:
    """Return the version that all places name.

    Raises:
        ReleaseError: If they differ, or if the tag names another one.
    """
    named = named_versions() | ({"the tag": tag.removeprefix("v")} if tag else {})
    if len(set(named.values())) > 1:
        raise ReleaseError("The versions differ: " + ", ".join(f"{place} is {named[place]}" for place in named))
    return named["pyproject.toml"]


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    return found[1].strip("\"'") if found else "missing"
