"""Each benchmark runs for a moment, and its results have the documented format."""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from benchmarks.__main__ import BENCHMARKS
from benchmarks.measuring import FULL, QUICK, TINY, WIDTH, Row, interleaved, line, percentile

pytestmark = pytest.mark.slow

NEED_PEERS = {"closed_path", "half_open", "outage_cost", "redis_away", "status"}
PEERS = ("aiobreaker", "cashews", "circuitbreaker", "litellm", "purgatory", "pybreaker", "stamina")
HAS_PEERS = all(importlib.util.find_spec(name) for name in PEERS)


ON_A_CLUSTER = {"operator_pauses", "operator_crashes", "operator_states"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name not in ON_A_CLUSTER])
def test_it_finds_well_formed_rows(name: str) -> None:
    if name in NEED_PEERS and not HAS_PEERS:
        pytest.skip("the libraries to compare with are not installed: `make bench` does it")
    are_well_formed(name)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.usefixtures("control_plane")  # skips where there can be none
@pytest.mark.parametrize("name", sorted(ON_A_CLUSTER))
def test_it_finds_well_formed_rows_on_a_cluster(name: str) -> None:
    are_well_formed(name)


def are_well_formed(name: str) -> None:
    rows = list(BENCHMARKS[name](TINY))
    assert rows
    assert len({(row.name, row.unit) for row in rows}) == len(rows)
    assert max(len(row.name) for row in rows) <= WIDTH
    for row in rows:
        assert list(row.fields()) == ["name", "ours", "peer", "ratio", "unit"]
        assert all(math.isfinite(value) and value >= 0 for value in (row.ours, row.peer or 0.0))


def test_a_ratio_is_ours_by_the_peers() -> None:
    assert Row("a call", 1.0, "us", 4.0).ratio == 0.25
    assert Row("a call", 1.0, "us").ratio is None
    assert Row("lost", 0.0, "%", 0.0).ratio is None


def test_each_row_is_a_line_of_one_table() -> None:
    lines = [line(Row("a call", 1.5, "us", 3.0)), line(Row("a longer name", 1234.5, "us"))]
    assert lines[0].split() == ["a", "call", "1.5", "3", "0.5x", "us"]
    assert lines[1].split() == ["a", "longer", "name", "1,234", "us"]
    assert len({len(each) for each in lines}) == 1


def test_samples_are_taken_in_turns_and_the_least_counts() -> None:
    turns: list[str] = []

    def sample(name: str) -> float:
        turns.append(name)
        return float(len(turns))

    least = interleaved({name: partial(sample, name) for name in "ab"}, 3)
    assert turns == ["a", "b", "b", "a", "a", "b"]
    assert least == {"a": 1.0, "b": 2.0}


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(value) for value in range(1, 101)]
    assert percentile(values, 50) == 51.0
    assert percentile(values, 99) == 100.0
    assert percentile([7.0], 99) == 7.0


def test_full_is_never_less_than_quick() -> None:
    assert QUICK.samples < FULL.samples
    assert QUICK.rounds < FULL.rounds
    assert QUICK.away_calls < FULL.away_calls


def test_an_unknown_name_is_told_with_the_known_ones(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "closed_pat"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert "there is no benchmark 'closed_pat'; there are closed_path" in done.stderr
