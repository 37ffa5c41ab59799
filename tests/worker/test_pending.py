"""What a batch says of its calls, however many it holds: the last one, the last success, how long they took."""

from __future__ import annotations

from collections import deque

from openrouter_guard.rules.signals import NEUTRAL, SUCCESS, Effect, ErrorType, Signal
from openrouter_guard.rules.wire import iso
from openrouter_guard.worker.pending import Pending, Result, gather

TIMEOUT = Signal(Effect.FAILURE, ErrorType.TIMEOUT, "no answer")


def fields(*signals: Signal) -> dict[str, str]:
    """The fields that a batch sets, of calls that ended one second after the other, the first at 1,000."""
    batches: deque[Pending] = deque()
    gather((Result(signal, epoch=1, at_s=1000.0 + second) for second, signal in enumerate(signals)), batches, "w")
    return dict(batches[0].batch("w", 1, now_s=1000.0).fields)


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
    def counters(self, *results: Result) -> dict[str, int]:
        batches: deque[Pending] = deque()
        gather(results, batches, "w")
        counters = batches[0].batch("w", 1, now_s=1000.0).counters
        return {name: count for name, count in counters.items() if name.startswith("latency")}

    def test_is_that_of_each_call_good_or_bad(self) -> None:
        found = self.counters(
            Result(SUCCESS, 1, 1000.0, 1.2), Result(SUCCESS, 1, 1001.0, 1.3), Result(TIMEOUT, 1, 1000.0, 30.0)
        )
        assert found == {"latency_ms_le_1500": 2, "latency_ms_le_30000": 1, "latency_ms_sum": 32_500}

    def test_is_not_that_of_a_call_that_says_nothing_about_the_upstream(self) -> None:
        assert self.counters(Result(NEUTRAL, 1, 1000.0, 1.2)) == {}

    def test_is_not_known_of_what_others_report(self) -> None:
        assert self.counters(Result(SUCCESS, 1, 1000.0)) == {}
