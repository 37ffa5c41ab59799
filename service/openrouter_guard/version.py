"""The running version."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["package_version"]


def package_version() -> str:
    """Return the package's version; 0 if it was not installed, as in a checkout on ``PYTHONPATH``."""
    try:
        return version("openrouter-guard")
    except PackageNotFoundError:
        return "0"
