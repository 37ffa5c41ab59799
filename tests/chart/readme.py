"""The table of values in the chart's README, made from ``values.yaml``: ``python -m tests.chart.readme``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from tests.chart.helm import CHART

__all__ = ["README", "current"]

README = CHART / "README.md"
_VALUES = CHART / "values.yaml"
_HEADING = "## Values\n"
_KEY = re.compile(r"^( *)([A-Za-z]\w*):(?: |$)")


def current() -> str:
    """The README as it should be: what a person wrote, and the table after it."""
    written, _, _ = README.read_text().partition(_HEADING)
    return f"{written}{_HEADING}\n| value | default | |\n| --- | --- | --- |\n" + "".join(_rows())


def _rows() -> Iterator[str]:
    values = yaml.safe_load(_VALUES.read_text())
    for path, comment, is_section in _commented(_VALUES.read_text(), values):
        value = _at(values, path)
        if comment or not is_section:
            default = "" if is_section else f"`{json.dumps(value, ensure_ascii=False)}`"
            yield f"| `{'.'.join(path)}` | {default} | {comment} |\n"


def _commented(text: str, values: Any) -> Iterator[tuple[tuple[str, ...], str, bool]]:
    """Each key's path, the comment right above it, and whether its own keys follow below; those in lists are none."""
    path: list[str] = []
    comment: list[str] = []
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            comment.append(line.strip().removeprefix("#").strip())
            continue
        key = _KEY.match(line)
        if key:
            path[len(key[1]) // 2 :] = [key[2]]
            value = _at(values, path)
            if value is not None:
                said = " ".join(comment).replace("|", "\\|").replace("<", "&lt;")
                yield tuple(path), said, isinstance(value, dict) and line.endswith(":")
        comment = []


def _at(values: Any, path: list[str] | tuple[str, ...]) -> Any:
    """None where there is no such key; no default of ours is null."""
    for name in path:
        values = values.get(name) if isinstance(values, dict) else None
    return values


if __name__ == "__main__":
    README.write_text(current())
