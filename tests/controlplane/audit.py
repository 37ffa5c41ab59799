"""The API server's audit log.

Source: https://kubernetes.io/docs/reference/config-api/apiserver-audit.v1/
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["AuditLog"]


class AuditLog:
    """Reads the record on from where it was left, so that a long one costs no more to follow than a short one."""

    def __init__(self, path: Path, position: int) -> None:
        self._path = path
        self._position = position

    def more(self) -> list[dict[str, Any]]:
        """The requests that were answered since, oldest first; an answer may arrive a little before its event."""
        with self._path.open("rb") as file:
            file.seek(self._position)
            whole, newline, _unfinished = file.read().rpartition(b"\n")
        self._position += len(whole) + len(newline)
        return [json.loads(line) for line in whole.splitlines()]
