"""What a command shows to people, as data: tables, facts and lines of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from openrouter_guard.rules.parsing import line_of

__all__ = ["Block", "Facts", "Table", "Text", "cell", "plain"]

CELL_MOST = 160
_GAP = "  "


@dataclass(frozen=True, slots=True)
class Table:
    """Rows with the same columns; ``empty`` is shown if there are none."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    title: str = ""
    empty: str = "none"


@dataclass(frozen=True, slots=True)
class Facts:
    """Names with their values; those without a value are left out."""

    pairs: Mapping[str, object]
    title: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """One line."""

    line: str


Block: TypeAlias = Table | Facts | Text


def cell(value: object) -> str:
    """Return a value as one line without terminal escapes: people and other programs wrote some of them."""
    match value:
        case None | "":
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.10g}"
        case _:
            return line_of(str(value), CELL_MOST)


def plain(blocks: Sequence[Block]) -> str:
    """Return the blocks without colour: columns apart by two spaces, an empty line between blocks."""
    return "\n\n".join(_plain(block) for block in blocks)


def _plain(block: Block) -> str:
    match block:
        case Text(line):
            return line_of(line, 2_000)
        case Facts(pairs, title):
            width = max((len(name) for name in pairs), default=0)
            lines = [f"{name.ljust(width)}{_GAP}{cell(value)}" for name, value in pairs.items() if _is_said(value)]
            return _titled(title, lines)
        case Table(columns, rows, title, empty):
            return _titled(title, _aligned([[name.upper() for name in columns], *rows]) if rows else [empty])


def _is_said(value: object) -> bool:
    return value is not None and value != ""


def _titled(title: str, lines: Sequence[str]) -> str:
    return "\n".join([f"{line_of(title)}:", *(f"  {line}" for line in lines)] if title else lines)


def _aligned(rows: Sequence[Sequence[object]]) -> list[str]:
    texts = [[cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = [_GAP.join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in texts]
    return [line.rstrip() for line in lines]
