"""Draws blocks on a terminal; the only importer of rich."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table as Drawn
from rich.text import Text as Styled

from .tables import Block, Facts, Table, cell, plain

__all__ = ["drawn"]

_STYLES = {
    "closed": "green",
    "ok": "green",
    "active": "green",
    "yes": "green",
    "open": "bold red",
    "failed": "bold red",
    "half_open": "yellow",
    "warning": "yellow",
    "cooling": "yellow",
    "unknown": "dim",
    "skipped": "dim",
    "-": "dim",
}
"""The colour of a value that begins with this word: one language for all commands."""


def drawn(blocks: Sequence[Block]) -> None:
    """Print the blocks."""
    console = Console(highlight=False, emoji=False, markup=False)
    for number, block in enumerate(blocks):
        if number:
            console.print()
        for part in _parts(block):
            console.print(part)


def _parts(block: Block) -> list[RenderableType]:
    match block:
        case Table(columns, rows, title) if rows:
            return [*_heading(title), _table(columns, rows)]
        case Facts(pairs, title):
            grid = Drawn.grid(padding=(0, 2))
            grid.add_column(style="dim", no_wrap=True)
            grid.add_column(overflow="fold")
            for name, value in pairs.items():
                if value is not None and value != "":
                    grid.add_row(Styled(name), _styled(value))
            return [*_heading(title), grid]
        case _:
            return [Styled(plain([block]))]


def _heading(title: str) -> list[RenderableType]:
    return [Styled(cell(title), style="bold")] if title else []


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Drawn:
    table = Drawn(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name.upper(), overflow="fold")
    for row in rows:
        table.add_row(*map(_styled, row))
    return table


def _styled(value: object) -> Styled:
    text = cell(value)
    return Styled(text, style=_STYLES.get(text.partition(" ")[0].rstrip(":,"), ""))
