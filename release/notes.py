"""The notes of a release: its section of the changelog."""

from __future__ import annotations

import re

from .versions import ROOT, ReleaseError

__all__ = ["notes"]


def notes(version: str, *, is_released: bool) -> str:
    """Return the section of a version; before its release, that of the unreleased changes.

    Raises:
        ReleaseError: If the changelog has no such section, or an empty one.
    """
    title = re.escape(version) if is_released else "Unreleased"
    changelog = (ROOT / "CHANGELOG.md").read_text()
    found = re.search(rf"^## \[{title}\].*?\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    text = found[1].strip() if found else ""
    if not text:
        raise ReleaseError(f"CHANGELOG.md has no section [{version}]: rename [Unreleased] and add its date")
    return _absolute(text, version) + "\n"


def _absolute(text: str, version: str) -> str:
    """Links of the changelog are relative to the checkout, those of the notes to the page of the release."""
    return re.sub(r"\]\((?!https?://|#)", f"](../../blob/v{version}/", text)
