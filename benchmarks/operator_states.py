"""Anything that people, specs and the breaker may do, in any order; see ``tests/operator/states.py``.

What counts is the first row. A story that does not end as if nobody had ever paused anything is told in full.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.controlplane import ControlPlane
from tests.operator.states import Told, grounds, play

from .clusters import installed
from .measuring import Effort, Row
from .valkey import embedded_valkey

__all__ = ["run"]

STEPS = 30
QUIET_S = 30.0
"""Without any write, after every tenth story."""


def run(effort: Effort) -> Iterator[Row]:
    wrong, told, began_at = 0, Told(), time.monotonic()
    with ControlPlane() as control_plane, embedded_valkey() as url, TemporaryDirectory() as folder:
        installed(control_plane)
        with grounds(control_plane, url, Path(folder)) as ground:
            told, ground.long_quiet_s = ground.told, QUIET_S
            try:
                play(ground, stories=effort.stories, steps=STEPS)
            except AssertionError as error:
                wrong = 1
                print(error, file=sys.stderr, flush=True)
    lasted_s = time.monotonic() - began_at
    yield Row("states: stories that end wrong", wrong, "stories")
    yield Row("states: stories", told.stories, "stories")
    yield Row("states: transitions tried", sum(told.moves.values()), "transitions")
    yield Row("states: paused workloads found between them", told.paused, "workloads")
    yield Row("states: operators killed", told.moves["operator killed"], "operators")
    yield Row("states: a story", lasted_s / max(told.stories, 1), "s")
