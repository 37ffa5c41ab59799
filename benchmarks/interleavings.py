"""Every interleaving of three workers, two permits and some faults, by the product's own rules, breadth first.

What counts is the first row. A promise that is broken is told with the shortest way to it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from tests.rules.exploring import explore, roots
from tests.rules.protocol import Violation

from .measuring import Effort, Row

__all__ = ["run"]

MOST = 1_000_000
"""States to go on from that are kept in memory, at about a kilobyte each."""


def run(effort: Effort) -> Iterator[Row]:
    try:
        found = explore(roots(), seconds=effort.exploring_s, most=MOST)
    except Violation as error:
        print(error, file=sys.stderr, flush=True)
        yield Row("interleavings: broken promises", 1, "promises")
        return
    yield Row("interleavings: broken promises", 0, "promises")
    yield Row("interleavings: different states", found.states, "states")
    yield Row("interleavings: moves tried", found.moves, "moves")
    yield Row("interleavings: all of them, so deep", found.depth, "moves")
