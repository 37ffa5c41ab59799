"""Conversion between our types and the API server's objects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

from openrouter_operator.kubernetes.objects import disowning, lines
from tests.operator.samples import workload

ENTRIES = "/metadata/managedFields"


async def test_a_watch_is_read_line_by_line_wherever_it_is_cut_and_however_long_they_are() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for chunk in (b"on", b"e\ntwo\n", b"x" * 300_000, b"\nunfinished"):
            yield chunk

    assert [line async for line in lines(chunks())] == [b"one", b"two", b"x" * 300_000]


def test_our_entries_alone_are_taken_away_where_they_are_and_the_last_ones_first() -> None:
    seen = replace(workload(), owned=(1, 3), owners=4, generation=7)
    assert disowning(seen) == [
        {"op": "test", "path": "/metadata/generation", "value": 7},
        {"op": "test", "path": f"{ENTRIES}/1/manager", "value": "openrouter-guard"},
        {"op": "test", "path": f"{ENTRIES}/3/manager", "value": "openrouter-guard"},
        {"op": "remove", "path": f"{ENTRIES}/3"},
        {"op": "remove", "path": f"{ENTRIES}/1"},
    ]


def test_where_nobody_else_has_an_entry_one_that_says_nothing_is_left() -> None:
    (*_, last) = disowning(replace(workload(), owned=(0,), owners=1))
    assert last == {"op": "replace", "path": ENTRIES, "value": [{}]}
