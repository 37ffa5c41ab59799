"""The code of the recipes, extracted from the documentation."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["ROOT", "code_in", "code_under", "end", "environment", "running"]

ROOT = Path(__file__).parents[2]
_HEADING = re.compile(r"^(#{2,}) (.+)$", re.MULTILINE)
_CODE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def code_in(text: str) -> list[str]:
    """The blocks of Python in a document."""
    return _CODE.findall(text)


def code_under(heading: str) -> list[str]:
    """The blocks of Python between *heading* and the next one in the recipes.

    Raises:
        KeyError: If there is no such heading.
    """
    pieces = _HEADING.split((ROOT / "docs" / "recipes.md").read_text())
    return code_in(dict(zip(pieces[2::3], pieces[3::3], strict=True))[heading])


def environment(redis_url: str, base_url: str, **settings: str) -> dict[str, str]:
    """What a worker's container would have in its environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENROUTER", "REDIS"))}
    connections = {"REDIS_URL": redis_url, "OPENROUTER_BASE_URL": base_url, "OPENROUTER_API_KEY": "sk-or-any"}
    return kept | connections | {f"OPENROUTER_GUARD_{name.upper()}": value for name, value in settings.items()}


def end(client: Any) -> None:
    """End the wait of the open breaker, as time would."""
    client.hset("openrouter:state", "open_until", client.hget("openrouter:state", "opened_at"))
    # Without a new version it would be a field that was damaged, and be put right.
    client.hincrby("openrouter:state", "version", 1)
    client.publish("openrouter:events", "{}")


@contextmanager
def running(folder: Path, environ: Mapping[str, str], *command: str) -> Iterator[Path]:
    """A Python program in *folder*, ended by SIGTERM; yields the file that it writes its output to."""
    output = folder / f"{len(list(folder.glob('*.log')))}.log"
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=folder,
            env={**environ, "PYTHONPATH": str(folder)},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            yield output
        finally:
            process.terminate()
            process.wait(30)
            print(output.read_text())
