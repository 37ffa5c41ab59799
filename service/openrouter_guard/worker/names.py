"""Names of workers."""

from __future__ import annotations

import os
import socket

from openrouter_guard.rules.parsing import text_of
from openrouter_guard.rules.redaction import redact

__all__ = ["default_worker_id", "worker_name"]

NAME_MOST = 200
"""A permit is named after its worker; longer names could not be decoded."""


def worker_name(given: str) -> str:
    """Return a worker's name for display: its own, without secrets, or host and process."""
    return redact(text_of(given))[:NAME_MOST] or default_worker_id()


def default_worker_id() -> str:
    """``worker-{host}-{pid}``, as in the existing system."""
    return f"worker-{socket.gethostname()}-{os.getpid()}"
