"""Random sequences of changes by people, specs and the breaker; see ``tests/operator/states.py``.

In turns, the operator sees the cluster as it is, with watches that lag, and with states that it never sees.

What counts is the first row. A story that does not end as if nobody had ever paused anything is told in full, and the
others follow.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis.errors import Flaky

from tests.controlplane import ControlPlane
from tests.operator.delays import EVENT_DELAYED, LIST_OUTDATED, STATE_SKIPPED
from tests.operator.outdated import STALE, UNOBSERVED, outdated_grounds
from tests.operator.proxy import Late
from tests.operator.states import Ground, Told, grounds, play

from .clusters import installed
from .measuring import Effort, Row
from .valkey import embedded_valkey

__all__ = ["run"]

STEPS = 30
AT_ONCE = 5
"""Stories before the operator sees the cluster in another way."""
QUIET_S = 30.0
"""Without any write, after every tenth story."""


class Stories:
    """Plays stories, and counts them.

    Attributes:
        wrong: How many did not end well.
        faults: How often the operator has seen an outdated cluster, by kind.
    """

    def __init__(self, control_plane: ControlPlane, redis_url: str, folder: Path) -> None:
        self._control_plane = control_plane
        self._redis_url = redis_url
        self._folder = folder
        self.told = Told()
        self.wrong = 0
        self.faults = Counter[str]()

    def play(self, stories: int) -> None:
        for late in itertools.cycle((None, STALE, UNOBSERVED)):
            if self.told.stories >= stories:
                return
            with self._grounds(late) as ground:
                ground.told, ground.long_quiet_s = self.told, QUIET_S
                self._play(ground, min(AT_ONCE, stories - self.told.stories))
                self.faults += ground.faults
            self._tell()

    def _grounds(self, late: Late | None) -> AbstractContextManager[Ground]:
        if late is None:
            return grounds(self._control_plane, self._redis_url, self._folder)
        return outdated_grounds(self._control_plane, self._redis_url, self._folder, late)

    def _play(self, ground: Ground, stories: int) -> None:
        try:
            play(ground, stories=stories, steps=STEPS)
        except (AssertionError, Flaky) as error:  # Flaky: played once more, it ended well
            self.wrong += 1
            print(*getattr(error, "exceptions", (error,)), sep="\n", file=sys.stderr, flush=True)

    def _tell(self) -> None:
        told = self.told
        counts = {"stories": told.stories, "wrong": self.wrong, "transitions": told.moves.total()}
        more = {"times paused": told.paused, "times killed": told.moves["operator killed"]}
        line = ", ".join(f"{name}: {number}" for name, number in (counts | more | self.faults).items())
        print(line, file=sys.stderr, flush=True)


def run(effort: Effort) -> Iterator[Row]:
    began_at = time.monotonic()
    with ControlPlane() as control_plane, embedded_valkey() as url, TemporaryDirectory() as folder:
        installed(control_plane)
        stories = Stories(control_plane, url, Path(folder))
        stories.play(effort.stories)
    told, lasted_s = stories.told, time.monotonic() - began_at
    yield Row("states: stories that end wrong", stories.wrong, "stories")
    yield Row("states: stories", told.stories, "stories")
    yield Row("states: transitions tried", told.moves.total(), "transitions")
    yield Row("states: paused workloads found between them", told.paused, "workloads")
    yield Row("states: operators killed", told.moves["operator killed"], "operators")
    yield Row("states: events shown late", stories.faults[EVENT_DELAYED], "events")
    yield Row("states: states never shown", stories.faults[STATE_SKIPPED], "states")
    yield Row("states: lists that were outdated", stories.faults[LIST_OUTDATED], "lists")
    yield Row("states: a story", lasted_s / max(told.stories, 1), "s")
