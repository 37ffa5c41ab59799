"""What a batch says of the last call and the last success, however many results it holds."""

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
