"""The existing system as it runs beside ours: a double of its reporter, its manager and its API.

What each operation leaves in Redis is recorded in ``recorded.json``; ``test_double.py`` holds the double to that.
"""

from .double import (
    FIELDS,
    LOCK,
    STATE,
    Checked,
    ExistingApi,
    ExistingManager,
    ExistingReporter,
    ExistingState,
    ExistingWorker,
)

__all__ = [
    "FIELDS",
    "LOCK",
    "STATE",
    "Checked",
    "ExistingApi",
    "ExistingManager",
    "ExistingReporter",
    "ExistingState",
    "ExistingWorker",
]
