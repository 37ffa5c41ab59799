"""The scripts that run inside Redis."""

from __future__ import annotations

from importlib import resources

from .connection import Script

__all__ = ["CLAIM", "COMMIT", "COUNT", "PERMIT", "TIMES"]


def _script(*names: str) -> Script:
    files = (resources.files(__package__).joinpath(f"{name}.lua") for name in ("own", *names))
    return Script("".join(file.read_text() for file in files))


COUNT = _script("reading", "models", "count")
COMMIT, PERMIT, TIMES, CLAIM = map(_script, ("commit", "permit", "times", "claim"))
