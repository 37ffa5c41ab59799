"""What a worker is called."""

from __future__ import annotations

import os
import socket

from openrouter_guard.rules.parsing import text_of
from openrouter_guard.rules.redaction import redact

__all__ = ["default_worker_id", "worker_name"]

NAME_MOST = 200
"""A permit is named after its worker, and a longer name than can be read again is nobody's."""


def worker_name(given: str) -> str:
    """What a worker is called wherever that is shown: as it says, without secrets, or by its process."""
    return redact(text_of(given))[:NAME_MOST] or default_worker_id()


def default_worker_id() -> str:
    """``worker-{host}-{pid}``, as existing workers call themselves."""
    return f"worker-{socket.gethostname()}-{os.getpid()}"
