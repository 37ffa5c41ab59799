"""The service under a steady load, its store killed and started again twice."""

from __future__ import annotations

import pytest

from benchmarks.soak import CONNECTIONS, PER_S, soak

SECONDS = 6.0


@pytest.mark.slow
def test_every_request_gets_its_answer_in_time_and_memory_stays_flat() -> None:
    found = soak(SECONDS)
    assert found.answers.bad == 0
    assert len(found.answers.times_s) > PER_S * SECONDS / 60  # a busy machine manages few of them
    assert max(found.answers.times_s) < 3.0
    assert found.calls == 1
    assert found.growth_mib < CONNECTIONS / 10
