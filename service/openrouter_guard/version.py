"""Which version runs."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["package_version"]


def package_version() -> str:
    """That of the package; 0 where it was not installed, as in a checkout on ``PYTHONPATH``."""
    try:
        return version("openrouter-guard")
    except PackageNotFoundError:
        return "0"
