"""The folder of one control plane: in memory where possible, and removed even if its owner was killed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["fresh_workdir"]

_PREFIX = "openrouter-guard-controlplane-"
_MEMORY = Path("/dev/shm")
_BYTES_NEEDED = 2**30  # containers often have 64 MB there, which etcd alone would fill


@contextlib.contextmanager
def fresh_workdir() -> Iterator[Path]:
    """A new folder that only this user can read, for as long as the context lasts."""
    parent = _MEMORY if _has_room(_MEMORY) else Path(tempfile.gettempdir())
    _remove_orphans(parent)
    path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _has_room(folder: Path) -> bool:
    return os.access(folder, os.W_OK) and shutil.disk_usage(folder).free >= _BYTES_NEEDED


def _remove_orphans(parent: Path) -> None:
    """Remove the folders whose owner, named in the folder's name, was killed."""
    for path in parent.glob(f"{_PREFIX}*"):
        owner = re.match(rf"{_PREFIX}(\d+)-", path.name)
        if owner and not _is_alive(int(owner[1])):
            shutil.rmtree(path, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
