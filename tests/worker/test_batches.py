"""A batch of results, of any size: the last one, the last success, and latencies."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import pytest

from openrouter_guard.rules.codec import iso
from openrouter_guard.rules.signals import NEUTRAL, SUCCESS, Effect, ErrorType, Signal
from openrouter_guard.store import Batch
from openrouter_guard.worker.reporting.batches import METRICS_ONLY, ResultBatch, last_of

TIMEOUT = Signal(Effect.FAILURE, ErrorType.TIMEOUT, "no answer")


class Ended(NamedTuple):
    signal: Signal
    epoch: int
    at: float
    took_s: float | None = None


def batches_of(*results: Ended) -> list[Batch]:
    """What is sent of these results, at 1,010."""
    pending: deque[ResultBatch] = deque()
    for signal, epoch, at, took_s in results:
        last_of(pending, epoch, at, "w").add(signal, at, took_s)
    return [each.batch("w", number, now=1010.0) for number, each in enumerate(pending)]


def fields(*signals: Signal) -> dict[str, str]:
    """The fields that a batch sets, of calls that ended one second after the other, the first at 1,000."""
    (batch,) = batches_of(*(Ended(signal, 1, 1000.0 + second) for second, signal in enumerate(signals)))
    return dict(batch.fields)


class TestTimes:
    def test_are_those_of_the_last_success(self) -> None:
        found = fields(SUCCESS, SUCCESS, SUCCESS)
        assert found["last_api_call"] == found["last_success"] == iso(1002.0)

    def test_a_failure_after_it_is_the_last_call_and_the_state(self) -> None:
        found = fields(SUCCESS, TIMEOUT)
        assert found["last_success"] == iso(1000.0)
        assert found["last_api_call"] == iso(1001.0)
        assert found["state"] == "error"

    def test_a_success_after_a_failure_takes_its_error_back(self) -> None:
        found = fields(TIMEOUT, SUCCESS)
        assert found["state"] == "active"
        assert found["error_details"] == ""

    def test_failures_alone_say_nothing_of_the_last_success(self) -> None:
        assert "last_success" not in fields(TIMEOUT)

    def test_a_call_that_says_nothing_sets_nothing(self) -> None:
        assert fields(NEUTRAL) == {}


class TestLatency:
    def counters(self, *results: Ended) -> dict[str, int]:
        (batch,) = batches_of(*results)
        return {name: count for name, count in batch.counters.items() if name.startswith("latency")}

    def test_is_that_of_each_call_good_or_bad(self) -> None:
        found = self.counters(
            Ended(SUCCESS, 1, 1000.0, 1.2), Ended(SUCCESS, 1, 1001.0, 1.3), Ended(TIMEOUT, 1, 1000.0, 30.0)
        )
        assert found == {"latency_ms_le_1500": 2, "latency_ms_le_30000": 1, "latency_ms_sum": 32_500}

    def test_is_not_that_of_a_call_that_says_nothing_about_the_upstream(self) -> None:
        assert self.counters(Ended(NEUTRAL, 1, 1000.0, 1.2)) == {}

    def test_is_not_known_of_what_others_report(self) -> None:
        assert self.counters(Ended(SUCCESS, 1, 1000.0)) == {}


class TestBatches:
    def test_keep_only_the_failures_after_the_last_success(self) -> None:
        (batch,) = batches_of(*(Ended(signal, 1, 1000.0) for signal in (TIMEOUT, SUCCESS, TIMEOUT, TIMEOUT)))
        assert batch.runs == (("S", 1), ("F", 2))
        assert batch.counters["failed_calls"] == 3

    def test_say_when_the_last_success_and_the_first_failure_after_it_ended(self) -> None:
        (batch,) = batches_of(
            *(Ended(signal, 1, 1000.0 + second) for second, signal in enumerate((TIMEOUT, SUCCESS, TIMEOUT, TIMEOUT)))
        )
        assert (batch.last_success_at, batch.first_failure_at) == (1001.0, 1002.0)

    @pytest.mark.parametrize(
        ("took_s", "is_timed", "runs", "earlier"),
        [
            pytest.param(5.0, True, (("S", 1), ("F", 2)), 1, id="the success began before them"),
            pytest.param(0.2, True, (("S", 1), ("F", 1)), 0, id="it began after the first of them"),
            pytest.param(5.0, False, (("S", 1), ("F", 1)), 0, id="nobody can be asked"),
        ],
    )
    def test_keep_the_failures_before_a_success_that_says_nothing_of_them(
        self, took_s: float, is_timed: bool, runs: tuple[tuple[str, int], ...], earlier: int
    ) -> None:
        pending: deque[ResultBatch] = deque()
        for signal, at, long_s in ((TIMEOUT, 1000.0, 0.5), (SUCCESS, 1000.5, took_s), (TIMEOUT, 1000.6, 0.5)):
            last_of(pending, 1, at, "w", is_timed=is_timed).add(signal, at, long_s)
        batch = pending[0].batch("w", 1, now=1010.0, answers=is_timed)
        assert (batch.runs, batch.earlier, batch.fields["state"]) == (runs, earlier, "error")
        assert batch.last_begun_at == 1000.5 - took_s

    def test_are_of_one_epoch_each(self) -> None:
        assert [batch.epoch for batch in batches_of(Ended(SUCCESS, 1, 1000.0), Ended(SUCCESS, 2, 1000.0))] == [1, 2]

    def test_are_of_one_day_each(self) -> None:
        midnight = 20 * 86_400.0
        found = batches_of(Ended(SUCCESS, 1, midnight - 0.1), Ended(SUCCESS, 1, midnight))
        assert [batch.counters["total_calls"] for batch in found] == [1, 1]

    def test_decide_nothing_by_failures_of_more_than_half_a_minute_ago(self) -> None:
        old, recent = batches_of(Ended(TIMEOUT, 1, 970.0), Ended(TIMEOUT, 1, 1001.0))
        assert old.epoch == METRICS_ONLY
        assert recent.epoch == 1

    def test_hold_successes_of_any_age_as_long_as_the_last_is_recent(self) -> None:
        (batch,) = batches_of(*(Ended(SUCCESS, 1, float(at)) for at in range(900, 1001, 20)))
        assert batch.epoch == 1
        assert batch.runs == (("S", 6),)
