"""After any sequence of changes by people, specs and the breaker, nothing of ours is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.controlplane import ControlPlane
from tests.operator.delays import EVENT_DELAYED, STATE_SKIPPED
from tests.operator.outdated import STALE, UNOBSERVED, outdated_grounds
from tests.operator.proxy import Late
from tests.operator.states import Ground, grounds, play

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("crd")]

STEPS = 15


def tells_of_pauses(ground: Ground, stories: int) -> None:
    told = play(ground, stories=stories, steps=STEPS, number=15)
    moves = sum(told.moves.values())
    print(f"{told.stories} stories, {moves} moves, {told.paused} times paused: {dict(told.moves)}")
    assert "Traceback" not in ground.operator.said()
    assert told.paused, "nothing was ever paused: these stories mean nothing"


@pytest.mark.timeout(300)
def test_whatever_was_done_it_is_as_if_nobody_had_ever_paused_anything(
    control_plane: ControlPlane, redis_url: str, tmp_path: Path
) -> None:
    with grounds(control_plane, redis_url, tmp_path) as ground:
        tells_of_pauses(ground, stories=2)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("late", "fault"),
    [
        pytest.param(STALE, EVENT_DELAYED, id="stale: watches lag by two seconds"),
        pytest.param(UNOBSERVED, STATE_SKIPPED, id="unobserved: only the newest state of two seconds is seen"),
    ],
)
def test_so_it_is_where_the_operator_sees_the_past(
    control_plane: ControlPlane, redis_url: str, tmp_path: Path, late: Late, fault: str
) -> None:
    """And goes back in time when it starts anew: its lists come from a cache that is behind."""
    with outdated_grounds(control_plane, redis_url, tmp_path, late) as ground:
        tells_of_pauses(ground, stories=2)
        assert ground.faults[fault], "the operator has seen the present: these stories mean nothing"
