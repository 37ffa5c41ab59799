"""Removes from an environment the files that no process of ours loads: ``python image/prune.py SITE_PACKAGES``.

More than half of an image would be generated code of the Kubernetes client: a class for each group and kind of the
API, twice. The operator asks for plain JSON and needs none of them, and kopf imports three. The tests of the pruned
image run the commands with the files that are left.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

GENERATED = (
    "kubernetes/client/api",
    "kubernetes/client/models",
    "kubernetes/aio/client/api",
    "kubernetes/aio/client/models",
)
KEPT = {"__init__.py", "v1_managed_fields_entry.py", "v1_object_meta.py", "v1_owner_reference.py"}
"""The packages themselves, and the classes that kopf imports."""

FOR_COMPILERS = {".c", ".h", ".pxd", ".pyi", ".pyx"}
TESTS = ("certifi/tests", "websocket/tests")


def superfluous(site: Path) -> Iterator[Path]:
    """Yield the files to remove.

    Raises:
        FileNotFoundError: If the Kubernetes client has no such folder any more.
    """
    for folder in GENERATED if (site / "kubernetes").exists() else ():
        if not (site / folder).is_dir():
            raise FileNotFoundError(
                f"{site / folder} is not there: look where the Kubernetes client has its classes now"
            )
        yield from (path for path in (site / folder).rglob("*.py") if path.name not in KEPT)
    for folder in TESTS:
        yield from (path for path in (site / folder).rglob("*") if path.is_file())
    yield from (path for path in site.rglob("*") if path.suffix in FOR_COMPILERS)
    yield from site.rglob("*.pyc")  # the image compiles the files that are left


def main(site: Path) -> None:
    paths = set(superfluous(site))
    size = sum(path.stat().st_size for path in paths)
    for path in paths:
        path.unlink()
    print(f"{site}: {len(paths)} files of {size / 1e6:.0f} MB removed")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
