"""An operator that is killed at random requests while it pauses and resumes 50 workloads, and started again.

What counts is the first row: how many workloads are not as they were in the end.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.controlplane import ControlPlane
from tests.operator.crashes import Outcome, Story, connected, fleet_of, play, random_deaths

from .clusters import installed
from .measuring import Effort, Row
from .valkey import embedded_valkey

__all__ = ["run"]

TARGETS = 50
TELL_EVERY = 20
"""Stories."""


def run(effort: Effort) -> Iterator[Row]:
    with ControlPlane() as control_plane, embedded_valkey() as url, TemporaryDirectory() as folder:
        installed(control_plane)
        began_at = time.monotonic()
        outcomes = asyncio.run(_played(control_plane, url, Path(folder), effort.crashes))
        lasted_s = time.monotonic() - began_at
    yield Row("crashes: workloads lost or stranded", sum(len(outcome.wrong) for outcome in outcomes), "workloads")
    yield Row("crashes: operators killed", sum(outcome.deaths for outcome in outcomes), "operators")
    yield Row(f"crashes: a pause and a resume of {TARGETS} workloads", lasted_s / len(outcomes), "s")


async def _played(control_plane: ControlPlane, url: str, folder: Path, stories: int) -> Sequence[Outcome]:
    async with connected(control_plane) as cluster:
        names = {seed: f"seed-{seed}-{secrets.token_hex(3)}" for seed in range(stories)}
        return await play(
            [
                Story(
                    control_plane, cluster, url, folder, name, fleet_of(seed, TARGETS), random_deaths(seed, TARGETS)
                )
                for seed, name in names.items()
            ],
            after=_Progress(stories).note,
        )


class _Progress:
    """Says on stderr how far it is, every now and then; at once if something is wrong."""

    def __init__(self, stories: int) -> None:
        self._began_at = time.monotonic()
        self._stories = stories
        self._done = 0

    def note(self, outcome: Outcome) -> None:
        self._done += 1
        for wrong in outcome.wrong:
            print(wrong, file=sys.stderr, flush=True)
        if self._done % TELL_EVERY == 0:
            took_s = time.monotonic() - self._began_at
            print(f"{self._done} of {self._stories} stories in {took_s:.0f} s", file=sys.stderr, flush=True)
