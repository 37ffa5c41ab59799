"""Prometheus and its tool for rules, as this machine has them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

__all__ = ["RULES", "RUNBOOKS", "alerts", "find"]

_ROOT = Path(__file__).parents[2]
RULES = _ROOT / "charts" / "openrouter-guard" / "files" / "alerts.yaml"
RUNBOOKS = _ROOT / "docs" / "runbooks"
_IS_REQUIRED = os.environ.get("TESTS_REQUIRE_PROMETHEUS") == "1"
_MISSING = (
    "The alerts are tested with {}, which is not in PATH: install the package prometheus of your distribution "
    "(Debian: apt-get install prometheus), or a release of https://prometheus.io/download/"
)


def find(name: str) -> str:
    """Return the program; without it the test is skipped, or fails where it has to run."""
    if found := shutil.which(name):
        return found
    words = _MISSING.format(name)
    if _IS_REQUIRED:
        pytest.fail(words)
    pytest.skip(words)


def alerts() -> dict[str, dict[str, Any]]:
    """Return every rule by its alert's name."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}
