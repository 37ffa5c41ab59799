"""Build the documentation's site into ``build/site``: ``python -m release.site``. A broken link is an error."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from .versions import ROOT

__all__ = ["build"]

STAGED = ROOT / "build" / "pages"
PAGES = (
    *("README.md", "CHANGELOG.md", "docs", "charts/openrouter-guard/README.md"),
    *(".github/SECURITY.md", ".github/CONTRIBUTING.md"),
)
"""Pages and folders of the site. They keep their places, so that their links hold."""


def build() -> None:
    """Build the site.

    Raises:
        subprocess.CalledProcessError: If a page is in no menu, or a link leads nowhere.
    """
    shutil.rmtree(STAGED, ignore_errors=True)
    for name in PAGES:
        _stage(name)
    environ = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"], cwd=ROOT, env=environ, check=True
    )


def _stage(name: str) -> None:
    source, target = ROOT / name, STAGED / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)


if __name__ == "__main__":
    try:
        build()
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
