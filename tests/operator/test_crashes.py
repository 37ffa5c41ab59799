"""The operator is killed at any request while it pauses and resumes, and restarted: nothing is lost."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from openrouter_operator.kubernetes.client import Cluster
from tests.controlplane import ControlPlane
from tests.operator.conftest import deployment
from tests.operator.crashes import Body, Deaths, Outcome, Story, connected, fleet_of, play, random_deaths

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("crd")]

SEEDS = 20
STAGED = {"strategy": "Staged", "stepPercent": 50, "intervalSeconds": 1}


@dataclass
class Stage:
    """Where stories are played, a few at once."""

    control_plane: ControlPlane
    cluster: Cluster
    redis_url: str
    folder: Path

    def story(self, name: str, fleet: Sequence[Body], deaths: Deaths, **other: Any) -> Story:
        name = f"{name}-{secrets.token_hex(3)}"
        return Story(self.control_plane, self.cluster, self.redis_url, self.folder, name, fleet, deaths, **other)


@pytest.fixture
async def stage(control_plane: ControlPlane, redis_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    async with connected(control_plane) as cluster:
        yield Stage(control_plane, cluster, redis_url, tmp_path)


def wrong(outcomes: Sequence[Outcome]) -> list[str]:
    return [each for outcome in outcomes for each in outcome.wrong]


@pytest.mark.timeout(300)
async def test_killed_at_random_requests_it_strands_no_target_and_loses_no_original(stage: Stage) -> None:
    targets = 50
    stories = [
        stage.story(
            f"seed-{seed}",
            fleet_of(seed, targets),
            random_deaths(seed, targets),
            resume=STAGED if seed % 4 == 0 else {"strategy": "Immediate"},
        )
        for seed in range(SEEDS)
    ]
    outcomes = await play(stories)
    assert wrong(outcomes) == []
    assert sum(outcome.deaths for outcome in outcomes) > SEEDS, "too few of them died for this to mean anything"


async def test_killed_between_any_two_writes_it_goes_on_where_the_cluster_is(stage: Stage) -> None:
    fleet = [deployment("one", 1), deployment("three", 3), deployment("idle", 0)]
    (undisturbed,) = await play([stage.story("undisturbed", fleet, Deaths(only_writes=True))])
    pausing, resuming = undisturbed.writes
    assert pausing >= 4, "the finalizer, both workloads and the status"
    assert resuming >= 3, "both workloads and the status"
    deaths = [Deaths([after], only_writes=True) for after in range(1, pausing + 1)]
    deaths += [Deaths((), [after], only_writes=True) for after in range(1, resuming + 1)]
    outcomes = await play([stage.story(f"write-{n}", fleet, each) for n, each in enumerate(deaths)])
    assert wrong([undisturbed, *outcomes]) == []
    # A status that meets a conflict is written twice, so that one story has a write more than another.
    assert all(has_died_in_time(each, outcome) for each, outcome in zip(deaths, outcomes, strict=True))
    assert sum(outcome.deaths for outcome in outcomes) >= 7, "one for each write that has to be made"


def has_died_in_time(deaths: Deaths, outcome: Outcome) -> bool:
    """Whether the operator has died after that write, unless there was no such write."""
    turns = zip((deaths.pausing, deaths.resuming), outcome.writes, strict=True)
    return outcome.deaths == sum(after[0] <= written for after, written in turns if after)
