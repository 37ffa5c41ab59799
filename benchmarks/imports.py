"""The cost of importing the library with nothing else installed: time, memory, modules, and packages.

Beside it redis-py, which it needs, and the breakers of others, which use redis-py where it is there.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from .measuring import Effort, Row

__all__ = ["run"]

RUNS = 5
OURS = "openrouter_guard.worker"
PEERS = ("redis.asyncio", "circuitbreaker", "pybreaker", "purgatory", "aiobreaker")
_TIMEOUT_S = 60.0

_SCRIPT = """
import sys
sys.path.append(sys.argv[1])
import importlib, json, pathlib, resource, time

def mib():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20

before, began_mib, began_at = set(sys.modules), mib(), time.perf_counter()
importlib.import_module(sys.argv[2])
spent_s = time.perf_counter() - began_at
loaded = set(sys.modules) - before
packages = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names
print(json.dumps({"ms": spent_s * 1000, "mib": mib() - began_mib, "modules": len(loaded), "packages": len(packages)}))
"""
_UNITS = {"ms": "ms", "mib": "MiB", "modules": "modules", "packages": "packages"}


def run(effort: Effort) -> Iterator[Row]:
    with TemporaryDirectory() as folder:
        _install(Path(folder))
        ours = _imported(OURS, folder, effort)
        for name in PEERS:
            if find_spec(name):
                theirs = _imported(name, folder, effort)
                yield from (Row(f"import {name}", ours[what], unit, theirs[what]) for what, unit in _UNITS.items())


def _install(folder: Path) -> None:
    """Put there what a worker has installed, and the peers: what else is around here must not be found."""
    for name in ("openrouter_guard", *PEERS):
        package = find_spec(name.partition(".")[0])
        if package is None or package.origin is None:
            continue
        origin = Path(package.origin)
        home = origin.parent if origin.name == "__init__.py" else origin
        for part in (home, *home.parent.glob(f"{name}-*.dist-info")):
            (folder / part.name).symlink_to(part)


def _imported(name: str, folder: str, effort: Effort) -> dict[str, float]:
    found = [_once(name, folder) for _ in range(min(RUNS, effort.samples))]
    return {what: statistics.median(run[what] for run in found) for what in _UNITS}


def _once(name: str, folder: str) -> dict[str, float]:
    command = [sys.executable, "-I", "-S", "-c", _SCRIPT, folder, name]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S)
    found: dict[str, float] = json.loads(done.stdout)
    return found
