"""The question to the fleet before the breaker opens, at 1,000,000,000 s on the Redis clock."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openrouter_guard.rules import evaluation
from openrouter_guard.rules.breaker import BreakerState, Closed, Open, Policy
from openrouter_guard.rules.codec import encode, parse
from openrouter_guard.rules.evaluation import evaluate
from openrouter_guard.rules.question import ANSWER_S, NEVER, NOTHING, Acquittal, Evidence, Question, Verdict, verdict
from openrouter_guard.rules.shared_state import SharedState, Upstream
from openrouter_guard.rules.signals import SUCCESS, Effect, ErrorType, OpenRouterState, Signal

pytestmark = pytest.mark.slow

NOW_S = 1e9
UNREACHABLE = Upstream(OpenRouterState.ERROR, error_details='{"error_type": "network_error"}')
FAILURE = Signal(Effect.FAILURE, ErrorType.SERVICE_UNAVAILABLE)
POLICY = Policy(jitter=0)


def settle(record: SharedState, at: float = NOW_S) -> SharedState:
    return evaluate(record, now=at, policy=POLICY, by="me")


def failed(
    times: int, *, at: float = NOW_S, took_s: float = 1.0, record: SharedState | None = None, live: int = 200
) -> SharedState:
    """The record after so many failures of as many reporters."""
    record = record or SharedState(epoch=7, live_reporters=live)
    for number in range(times):
        record = evaluation.counted(record, FAILURE, f"w{number}", began_at=at - took_s, ended_at=at)
    return record


def asked(record: SharedState) -> Question:
    assert isinstance(record.breaker, Closed)
    assert record.breaker.question is not None
    return record.breaker.question


def answered(record: SharedState, answers: int) -> SharedState:
    """The record whose question has so many answers."""
    assert isinstance(record.breaker, Closed)
    question = replace(asked(record), answers=answers)
    return replace(record, breaker=replace(record.breaker, question=question))


@given(st.integers(1, 40), st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_nothing_that_is_answered_keeps_a_run_that_goes_on_from_opening(
    reporters: int, contradicting: list[int]
) -> None:
    """However few report: for each question, the calls that contradict are so many times the failures.

    They were some once, as in a process that has just started on a busy machine, and are none in the end.
    """
    record, at = SharedState(epoch=7, live_reporters=reporters), NOW_S
    for number in range(2_000):
        at += 1
        record = evaluation.counted(record, FAILURE, f"w{number % reporters}", began_at=at - 1, ended_at=at)
        record = settle(record, at)
        if isinstance(record.breaker, Closed) and record.breaker.question is not None:
            times = contradicting.pop(0) if contradicting else 0
            record = settle(answered(record, times * record.breaker.failures), at + 0.3)
        if isinstance(record.breaker, Open):
            return
    pytest.fail(f"2,000 failures in a row: {record.breaker}")


@pytest.mark.parametrize(
    ("failures", "answers", "expected"),
    [
        pytest.param(5, 0, Verdict.OPEN, id="nobody answers"),
        pytest.param(5, 5, Verdict.OPEN, id="no more of them are well than failed"),
        pytest.param(5, 6, 6, id="a little more: ask again at the next failure"),
        pytest.param(5, 10, 8, id="half way between the two"),
        pytest.param(5, 19, 12, id="nearly four to one"),
        pytest.param(5, 20, Verdict.ACQUITTED, id="four to one"),
        pytest.param(9, 5_000, Verdict.ACQUITTED, id="a large fleet that is well"),
        pytest.param(0, 0, Verdict.OPEN, id="nothing at all"),
    ],
)
def test_what_follows_from_failures_and_answers(failures: int, answers: int, expected: Verdict | int) -> None:
    assert verdict(failures, answers) == expected


@given(st.integers(1, 10_000), st.integers(0, 100_000))
def test_more_answers_never_speak_for_opening(failures: int, answers: int) -> None:
    found, with_more = verdict(failures, answers), verdict(failures, answers + 1)
    if isinstance(found, int):
        assert found > failures
        assert with_more is Verdict.ACQUITTED or (isinstance(with_more, int) and with_more >= found)
    if found is Verdict.ACQUITTED:
        assert with_more is found


class TestEvidence:
    calls = st.tuples(st.floats(NOW_S, NOW_S + 100), st.floats(0, 600))

    @given(st.lists(calls, min_size=1), st.randoms())
    def test_is_the_same_in_whatever_order_it_comes(self, calls: list[tuple[float, float]], lot: object) -> None:
        known = NOTHING
        for began_at, took_s in calls:
            known = known.after(began_at, began_at + took_s)
        assert known.began_at == min(began_at for began_at, _ in calls)
        assert known.timed == len(calls)
        shuffled = NOTHING
        for began_at, took_s in sorted(calls, key=lambda call: -call[0]):
            shuffled = shuffled.after(began_at, began_at + took_s)
        assert (shuffled.began_at, shuffled.longest_s) == (known.began_at, known.longest_s)

    @given(st.lists(calls, min_size=1))
    def test_what_failures_usually_take_lies_between_their_mean_and_the_longest(
        self, calls: list[tuple[float, float]]
    ) -> None:
        known = NOTHING
        for began_at, took_s in calls:
            known = known.after(began_at, began_at + took_s)
        mean_s = known.took_s / known.timed
        assert mean_s - 1e-6 <= known.usual_s <= known.longest_s + 1e-6

    def test_of_calls_whose_beginning_nobody_knows_is_only_their_end(self) -> None:
        assert NOTHING.after(0.0, NOW_S) == Evidence(since=NOW_S)

    @pytest.mark.parametrize("known", [NOTHING, Evidence(NOW_S - 9, NOW_S - 8, 1, 1.0, 1.0)])
    def test_of_a_batch_is_the_same_as_of_each(self, known: Evidence) -> None:
        each = known.after(NOW_S - 3, NOW_S - 1).after(NOW_S - 5, NOW_S)
        assert known.after(0.0, NOW_S - 1).joined(2, NOW_S - 5, 7.0, 5.0) == each


class TestAsking:
    def test_comes_before_opening(self) -> None:
        assert settle(failed(4)) == failed(4)
        question = asked(settle(failed(5)))
        assert question == Question(round(NOW_S * 1e3), NOW_S, NOW_S - 1, 1.0, NOW_S)

    def test_nobody_is_asked_where_nobody_says_when_the_calls_began(self) -> None:
        record = SharedState(epoch=7, live_reporters=3)
        for number in range(5):
            record = evaluation.counted(record, FAILURE, f"w{number}")
        assert settle(record).phase(NOW_S) is BreakerState.OPEN

    def test_nor_on_probation_nor_about_an_account_that_is_empty(self) -> None:
        refused = Signal(Effect.FAILURE, ErrorType.CREDITS_EXHAUSTED)
        record = SharedState(Closed(on_probation=True), epoch=7, live_reporters=3)
        assert settle(failed(1, record=record)).phase(NOW_S) is BreakerState.OPEN
        for number in range(2):
            record = evaluation.counted(
                SharedState(epoch=7, live_reporters=1) if not number else record,
                refused,
                "wa",
                began_at=1,
                ended_at=2,
            )
        assert settle(record).phase(NOW_S) is BreakerState.OPEN

    def test_is_about_the_calls_of_the_last_acquittal_too(self) -> None:
        recent = replace(failed(5), acquittal=Acquittal(NOW_S - 4.9, NOW_S - 4.9))
        assert asked(settle(recent)).began_at == NOW_S - 4.9
        past = replace(failed(5), acquittal=Acquittal(NOW_S - 5.1, NOW_S - 4.9))
        assert asked(settle(past)).began_at == NOW_S - 1
        far_back = replace(failed(5), acquittal=Acquittal(NOW_S - 1, NOW_S - 5.1))
        assert asked(settle(far_back)).began_at == NOW_S - 1
        later = replace(failed(5), acquittal=Acquittal(NOW_S - 0.1, NOW_S - 0.5))
        assert asked(settle(later)).began_at == NOW_S - 1


class TestAQuestionThatIsOut:
    asked = settle(failed(5))

    @pytest.mark.parametrize(
        ("passed_s", "expected"), [(0.0, BreakerState.CLOSED), (0.24, BreakerState.CLOSED), (0.25, BreakerState.OPEN)]
    )
    def test_is_decided_after_a_quarter_of_a_second(self, passed_s: float, expected: BreakerState) -> None:
        assert settle(self.asked, NOW_S + passed_s).phase(NOW_S + passed_s) is expected

    def test_opens_for_what_the_calls_failed_of_and_no_later_than_a_run_alone_would_by_that(self) -> None:
        after = settle(self.asked, NOW_S + 0.3)
        assert isinstance(after.breaker, Open)
        assert (after.breaker.failures, after.breaker.opened_at) == (5, NOW_S + 0.3)

    def test_waits_for_no_clock_that_was_set_back(self) -> None:
        assert settle(self.asked, NOW_S - 30).phase(NOW_S - 30) is BreakerState.OPEN

    def test_acquits(self) -> None:
        after = settle(answered(self.asked, 20), NOW_S + 0.3)
        assert after.breaker == Closed()
        assert after.acquittal == Acquittal(NOW_S + 0.3, NOW_S - 1)

    def test_lets_the_run_go_on_where_it_is_not_clear(self) -> None:
        after = settle(answered(self.asked, 10), NOW_S + 0.3)
        assert isinstance(after.breaker, Closed)
        assert (after.breaker.failures, after.breaker.want, after.breaker.question) == (5, 8, None)
        assert settle(after, NOW_S + 0.4) is after
        seven = failed(2, at=NOW_S + 1, record=after)
        assert settle(seven, NOW_S + 1) is seven
        assert asked(settle(failed(3, at=NOW_S + 1, record=after), NOW_S + 1)).began_at == NOW_S - 1

    def test_is_not_ended_by_a_success_for_that_is_in_the_answers(self) -> None:
        after = evaluation.counted(self.asked, SUCCESS, "wz", began_at=NOW_S - 20, ended_at=NOW_S + 0.1)
        assert after is self.asked

    def test_is_ended_by_one_of_whoever_cannot_answer(self) -> None:
        after = evaluation.counted(self.asked, SUCCESS, "wz")
        assert after.breaker == Closed()

    def test_that_nobody_decides_on_does_not_hold_the_run_for_ever(self) -> None:
        after = evaluation.counted(self.asked, SUCCESS, "wz", began_at=NOW_S - 20, ended_at=NOW_S + 2.1)
        assert after.breaker == Closed()

    def test_counts_no_more_of_one_reporter_than_its_share(self) -> None:
        looping = self.asked
        for _ in range(100):
            looping = evaluation.counted(looping, FAILURE, "w0", began_at=NOW_S, ended_at=NOW_S + 0.1)
        # One more of that reporter counts: six.
        assert settle(answered(looping, 24), NOW_S + 0.3).breaker == Closed()
        assert settle(answered(looping, 6), NOW_S + 0.3).phase(NOW_S + 0.3) is BreakerState.OPEN

    def test_is_read_as_it_was_written(self) -> None:
        record = answered(replace(self.asked, acquittal=Acquittal(NOW_S - 9, NOW_S - 10.5)), 12)
        fields = encode(record)
        assert "answers" not in fields
        read = parse({**fields, "answers": f"{asked(record).number} 12 wa wb"}, NOW_S)
        assert read.breaker == record.breaker
        assert isinstance(read.breaker, Closed)
        assert isinstance(record.breaker, Closed)
        assert read.breaker.evidence == record.breaker.evidence
        assert read.acquittal == record.acquittal
        # Answers to another question are none.
        assert asked(parse({**fields, "answers": "17 12 wa wb"}, NOW_S)).answers == 0
        # A run that somebody ended takes its question along.
        ended = parse({**fields, "consecutive_failures": "0", "run": ""}, NOW_S)
        assert ended.breaker == Closed()
        assert encode(replace(record, breaker=Closed()))["answers"] == ""

    @pytest.mark.parametrize("field", ["question", "run_evidence", "acquitted", "run_want", "answers"])
    @pytest.mark.parametrize(
        "text", ["", "x", "nan nan nan nan nan", "1 2 3 4 5", "1e400 " * 5, "7 " * 9_999, f"9 {NOW_S * 9} 1 1 1"]
    )
    def test_that_cannot_be_read_is_none(self, field: str, text: str) -> None:
        fields = {**encode(self.asked), field: text}
        read = parse(fields, NOW_S)
        assert isinstance(read.breaker, Closed)
        expected = {"question": read.breaker.question is None, "run_evidence": read.breaker.evidence == NOTHING}
        assert expected.get(field, True)
        assert read.acquittal == NEVER
        assert read.breaker.failures == 5


class TestASuccessOfACallThatBeganBeforeTheFailedOnes:
    """It began before all of them, which took a second, and ends as the last of them does, or later."""

    def succeed(self, record: SharedState, *, took_s: float = 5.0, later_s: float = 0.0) -> SharedState:
        ended_at = NOW_S + later_s
        return evaluation.counted(record, SUCCESS, "w", began_at=ended_at - took_s, ended_at=ended_at)

    def failures(self, record: SharedState) -> int:
        assert isinstance(record.breaker, Closed)
        return record.breaker.failures

    def test_does_not_end_their_run(self) -> None:
        assert self.failures(failed(1, record=self.succeed(failed(4)))) == 5

    @pytest.mark.parametrize(
        ("took_s", "later_s"),
        [
            pytest.param(1.0, 0.0, id="it began with them"),
            pytest.param(0.5, 0.0, id="it began after them"),
            pytest.param(5.0, 1.0, id="a second after the first has failed"),
        ],
    )
    def test_ends_it_where(self, took_s: float, later_s: float) -> None:
        assert self.failures(self.succeed(failed(4), took_s=took_s, later_s=later_s)) == 0

    def test_ends_it_where_nobody_knows_when_one_of_them_began(self) -> None:
        assert self.failures(evaluation.counted(failed(4), SUCCESS, "w", ended_at=NOW_S)) == 0
        unknown = evaluation.counted(SharedState(epoch=7), FAILURE, "w", ended_at=NOW_S)
        assert self.failures(self.succeed(unknown)) == 0

    def test_ends_it_soon_after_an_acquittal(self) -> None:
        acquitted = replace(failed(4), acquittal=Acquittal(NOW_S - 4.9, NOW_S - 6))
        assert self.failures(self.succeed(acquitted)) == 0
        long_ago = replace(failed(4), acquittal=Acquittal(NOW_S - 5, NOW_S - 6))
        assert self.failures(self.succeed(long_ago)) == 4

    @pytest.mark.parametrize(
        ("failures", "answers", "expected"),
        [(5, 0, BreakerState.OPEN), (5, 1, BreakerState.CLOSED), (8, 1, BreakerState.OPEN)],
    )
    def test_makes_well_calls_weigh_more(self, failures: int, answers: int, expected: BreakerState) -> None:
        held = failed(failures - 1, record=self.succeed(failed(1)))
        after = settle(answered(settle(held), answers), NOW_S + ANSWER_S)
        assert after.phase(NOW_S + ANSWER_S) is expected
        if expected is BreakerState.CLOSED:
            assert after.breaker == Closed()
            assert after.acquittal == Acquittal(NOW_S + ANSWER_S, NOW_S + ANSWER_S)

    def test_is_told_to_all(self) -> None:
        record = self.succeed(failed(4))
        known = parse(encode(record), NOW_S).breaker
        assert isinstance(known, Closed)
        assert known.earlier == 1
        assert encode(self.succeed(record, took_s=0.5))["run_earlier"] == ""


class TestAnAnswer:
    question = Question(1, NOW_S, began_at=NOW_S - 5, usual_s=2.0, since=NOW_S - 3)

    @pytest.mark.parametrize(
        ("began_at", "expected"),
        [
            pytest.param(NOW_S - 5.1, 0, id="began before the first that failed"),
            pytest.param(NOW_S - 5, 1, id="began with it"),
            pytest.param(NOW_S - 2.1, 1, id="is out for longer than failures take"),
            pytest.param(NOW_S - 2, 0, id="may yet fail as they did"),
        ],
    )
    def test_has_the_calls_that_are_still_under_way(self, began_at: float, expected: int) -> None:
        assert self.question.answer(NOW_S, [began_at], []) == expected

    @pytest.mark.parametrize(
        ("began_at", "ended_at", "expected"),
        [
            pytest.param(NOW_S - 5, NOW_S - 1, 1, id="began with the first that failed"),
            pytest.param(NOW_S - 5.1, NOW_S - 1, 0, id="began before"),
            pytest.param(NOW_S - 5, NOW_S - 4, 1, id="ended a moment before the first failed"),
            pytest.param(NOW_S - 5, NOW_S - 4.1, 0, id="ended before that"),
        ],
    )
    def test_has_the_calls_that_ended_well(self, began_at: float, ended_at: float, expected: int) -> None:
        assert self.question.answer(NOW_S, [], [(began_at, ended_at)]) == expected


class TestFailuresOfTooFew:
    """One worker of three fails: the others are idle, or they are at work and well."""

    @pytest.fixture
    def record(self) -> SharedState:
        """Its calls fail once a second, and take a tenth."""
        record = SharedState(epoch=7, live_reporters=3)
        for second in range(6):
            at = NOW_S + second
            record = evaluation.counted(record, FAILURE, "wa", began_at=at - 0.1, ended_at=at)
        return record

    def test_decide_nothing_for_five_seconds(self, record: SharedState) -> None:
        assert evaluation.are_of_too_few(record, POLICY)
        assert settle(record, NOW_S + 4.99) == record

    def test_open_the_breaker_then_if_nobody_contradicts_them(self, record: SharedState) -> None:
        out = settle(record, NOW_S + 5)
        assert asked(out).began_at == pytest.approx(NOW_S - 0.1)
        assert settle(out, NOW_S + 5.2) == out
        assert settle(out, NOW_S + 5.3).breaker == Open("error", NOW_S + 5.3, NOW_S + 11.3, 1, 6)

    def test_wait_as_long_again_if_one_worker_does(self, record: SharedState) -> None:
        after = settle(answered(settle(record, NOW_S + 5), 1), NOW_S + 5.3)
        assert isinstance(after.breaker, Closed)
        assert (after.breaker.failures, after.breaker.question) == (6, None)
        assert settle(after, NOW_S + 10.2) == after
        assert asked(settle(after, NOW_S + 10.3))

    def test_are_over_with_any_success(self, record: SharedState) -> None:
        at = NOW_S + 4.9
        after = evaluation.counted(record, SUCCESS, "wb", began_at=at - 0.1, ended_at=at)
        assert settle(after, NOW_S + 9) == after
        assert after.breaker == Closed()

    def test_are_judged_as_usual_once_the_others_fail_too(self, record: SharedState) -> None:
        for number, reporter in enumerate(("wb", "wc", "wb")):
            at = NOW_S + 6 + number
            record = evaluation.counted(record, FAILURE, reporter, began_at=at - 0.1, ended_at=at)
        assert not evaluation.are_of_too_few(record, POLICY)
        out = answered(settle(record, at), 1)
        assert isinstance(settle(out, at + 0.3).breaker, Open)

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param({"mute_reporters": 1}, id="one of the others cannot be asked"),
            pytest.param({"upstream": UNREACHABLE}, id="its own network may be broken"),
        ],
    )
    def test_need_the_others_where(self, record: SharedState, change: dict[str, Any]) -> None:
        record = replace(record, **change)
        assert isinstance(record.breaker, Closed)
        later = settle(record, NOW_S + 30)
        assert later.breaker == record.breaker

    def test_of_which_nobody_knows_when_they_began_need_the_others_too(self) -> None:
        record = SharedState(epoch=7, live_reporters=3)
        for second in range(60):
            record = evaluation.counted(record, FAILURE, "ia", ended_at=NOW_S + second)
            assert settle(record, NOW_S + second) == record

    def test_that_a_health_check_agrees_with_include_those_of_the_network(self, record: SharedState) -> None:
        record = replace(record, upstream=UNREACHABLE, live_reporters=4)
        record = evaluation.counted(record, FAILURE, "c1", ended_at=NOW_S + 5)
        out = settle(record, NOW_S + 6)
        assert isinstance(settle(out, NOW_S + 6.3).breaker, Open)

    @given(st.integers(2, 200), st.floats(0, 100_000), st.integers(1, 500), st.floats(0, 4.9))
    def test_never_open_it_within_five_seconds(self, live: int, rate: float, failures: int, lasted_s: float) -> None:
        record = SharedState(epoch=7, live_reporters=live, calls_per_minute=rate)
        for number in range(failures):
            at = NOW_S + lasted_s * number / failures
            record = evaluation.counted(record, FAILURE, "wa", began_at=at - 0.1, ended_at=at)
            record = settle(record, at)
        assert isinstance(settle(record, NOW_S + lasted_s).breaker, Closed)


ends = st.lists(
    st.tuples(st.booleans(), st.sampled_from(["w0", "w1", "w2", "w3"]), st.floats(0, 0.4), st.floats(0, 20)),
    max_size=60,
)


@given(ends, st.lists(st.integers(0, 30), min_size=60, max_size=60), st.sampled_from([0.0, 400.0]))
@example(
    [(number != 1, f"w{number // 2 % 3}", 0.0, float(number == 1)) for number in range(6)]
    + [(False, "w0", 0.3, 0.0)],
    [0] * 60,
    0.0,
)
def test_nothing_opens_before_a_run_of_failures_alone_would(
    story: list[tuple[bool, str, float, float]], answers: list[int], rate: float
) -> None:
    """Successes of calls that began before a failed one are left out of that run: they need not end ours.

    Failures of too few reporters are another matter.
    """
    ours = plain = SharedState(epoch=7, live_reporters=4, calls_per_minute=rate)
    at, has_opened, latest_began_at = NOW_S, False, 0.0
    for (fails, reporter, pause_s, took_s), answer in zip(story, answers, strict=False):
        at += pause_s
        began_at = at - took_s
        if evaluation.are_of_too_few(ours, POLICY):
            return
        ours = settle(answered(ours, answer) if getattr(ours.breaker, "question", None) else ours, at)
        if isinstance(ours.breaker, Open):
            break
        signal = FAILURE if fails else SUCCESS
        ours = settle(evaluation.counted(ours, signal, reporter, began_at=began_at, ended_at=at), at)
        if fails:
            latest_began_at = max(began_at, latest_began_at)
        elif began_at < latest_began_at:
            continue
        else:
            latest_began_at = 0.0
        plain = settle(evaluation.counted(plain, signal, reporter), at)
        has_opened = has_opened or isinstance(plain.breaker, Open)
        plain = plain if isinstance(plain.breaker, Closed) else replace(plain, breaker=Closed())
    assert has_opened or isinstance(ours.breaker, Closed)


@given(ends)
def test_where_nobody_answers_it_opens_a_quarter_of_a_second_later(
    story: list[tuple[bool, str, float, float]],
) -> None:
    ours = plain = SharedState(epoch=7, live_reporters=4)
    at = NOW_S
    for fails, reporter, pause_s, took_s in story:
        at += pause_s
        ours = settle(ours, at)
        if not isinstance(plain.breaker, Closed) or not isinstance(ours.breaker, Closed):
            break
        signal = FAILURE if fails else SUCCESS
        ours = settle(evaluation.counted(ours, signal, reporter, began_at=at - took_s, ended_at=at), at)
        plain = settle(evaluation.counted(plain, signal, reporter), at)
    if isinstance(plain.breaker, Open):
        # Times are written down to the microsecond.
        assert isinstance(settle(ours, at + ANSWER_S + 1e-5).breaker, Open)


@pytest.mark.parametrize(
    ("round_trip_s", "within_s"),
    [
        pytest.param(0.0, 0.25, id="next door"),
        pytest.param(0.03, 0.25, id="in the next country"),
        pytest.param(0.08, 0.42, id="over an ocean"),
        pytest.param(0.15, 0.7, id="at the other end of the world"),
        pytest.param(60.0, 1.0, id="on the moon"),
    ],
)
def test_a_question_from_afar_leaves_time_for_its_answers(round_trip_s: float, within_s: float) -> None:
    record = evaluation.asked_from_afar(settle(failed(9)), round_trip_s)
    assert settle(record, NOW_S) == record
    assert settle(record, NOW_S + within_s - 0.01) == record
    assert isinstance(settle(record, NOW_S + within_s + 0.01).breaker, Open)
    assert asked(parse(encode(record), NOW_S)) == asked(record)
