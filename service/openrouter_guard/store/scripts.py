"""The scripts that run inside Redis."""

from __future__ import annotations

from importlib import resources

from .connection import Script

__all__ = ["CLAIM", "COMMIT", "COUNT", "TIMES"]


def _script(name: str) -> Script:
    own, script = (resources.files(__package__).joinpath(f"{part}.lua").read_text() for part in ("own", name))
    return Script(own + script)


COUNT, COMMIT, TIMES, CLAIM = map(_script, ("count", "commit", "times", "claim"))
