"""Evaluates the counted results and commits their consequences.

Every function takes the record as it was read and returns its successor, as in :mod:`.transitions`.
"""

from __future__ import annotations

from dataclasses import replace

from . import breaker as breakers
from . import failure_run as runs
from . import limits, older_writers
from . import question as questions
from . import window as windows
from .admission import ramp_most_s
from .breaker import BreakerState, Closed, HalfOpen, Open, Policy
from .override import Override, OverrideKind
from .parsing import row_of
from .question import ANSWER_S, Acquittal, Verdict
from .shared_state import News, SharedState
from .signals import Effect, ErrorType, OpenRouterState, Signal
from .text import WORD_MOST, words_of
from .transitions import CHECKS_SUCCEEDED, now_closed, now_open, released

__all__ = [
    "answered",
    "are_of_too_few",
    "asked_from_afar",
    "counted",
    "found_lately",
    "knowing",
    "evaluate",
]

CHECK_HOLDS_S = 60.0
"""No process may check again for this long (the slot), so the last check counts as current."""
LEGACY = "legacy worker"
"""Author of a change by an older writer, which leaves no name."""


def evaluate(record: SharedState, *, now: float, policy: Policy, by: str) -> SharedState:
    """Evaluate the counts, and the claims of older writers.

    Any process that reads the record may commit this: a worker that counted the decisive failure and died is no loss.
    """
    if record.override is not None:
        return _under_override(record, record.override, now)
    if (watched := limits.watched(record, now)) is not record:
        return watched
    breaker = breakers.with_clock(record.breaker, now=now, policy=policy)
    if breaker is not record.breaker:
        return replace(record, breaker=breaker)
    match record.breaker:
        case Closed() if record.legacy_open:
            return now_open(record, _last_error(record, now), LEGACY, now, policy)
        case Closed() as breaker if breaker.refusals >= policy.refusals_wanted:
            return now_open(record, OpenRouterState.CREDITS_EXHAUSTED.value, by, now, policy)
        case Closed() as breaker if _is_tripped(breaker, record, policy):
            return _judged(record, breaker, now, policy, by)
        case Closed() as breaker if _is_alone_in_silence(breaker, record, now, policy):
            return _judged_in_silence(record, breaker, now, policy, by)
        case Closed() as breaker if _may_be_local(breaker, record, now, policy):
            return replace(record, check_wanted_at=now)
        case Closed() as breaker if (
            breaker.window and policy.watches_rates and (found := _excess(record, now, policy))
        ):
            return now_open(_unwell(record, found[1]), found[0], by, now, policy)
        case Closed(on_probation=True) as breaker if record.upstream.last_success_at > breaker.since:
            return replace(record, breaker=replace(breaker, on_probation=False, since=now))
        case Closed(held_until=held_until) as breaker if held_until:
            return _after_limit(record, breaker, now, policy)
        case Open() | HalfOpen() if record.legacy_open is False:
            return _after_older_writer(record, now, policy)
        case _:
            return record


def _under_override(record: SharedState, override: Override, now: float) -> SharedState:
    if override.until <= now:
        return released(record, by=override.who, now=now)
    # An older writer knows no override: its change of the flag is written back.
    return record if record.legacy_open is None else replace(record, legacy_open=None)


def _after_limit(record: SharedState, breaker: Closed, now: float, policy: Policy) -> SharedState:
    """The first success after a rate limit begins the ramp; if it comes later than a ramp may last, there is none."""
    held_until = breaker.held_until
    if now > held_until + policy.ramp_s + ramp_most_s(breaker, record, policy):
        return replace(record, breaker=replace(breaker, held_until=0.0))
    if not held_until < record.upstream.last_success_at <= now:
        return record
    return replace(record, breaker=replace(breaker, held_until=0.0, ramp_from=now))


def _last_error(record: SharedState, now: float) -> str:
    error_type = _reported(record)
    is_wrong = error_type == OpenRouterState.API_KEY_INVALID and found_lately(record, OpenRouterState.ACTIVE, now)
    return OpenRouterState.SERVICE_UNAVAILABLE.value if is_wrong else error_type


def found_lately(record: SharedState, state: OpenRouterState, now: float) -> bool:
    """Return whether the last health check found this, and is still valid.

    A key that worked before the first refused call may have been revoked since.
    """
    checked_at = record.upstream.checked_at
    is_outdated = state is OpenRouterState.ACTIVE and checked_at < record.doubted_at
    return record.check_found is state and now - checked_at <= CHECK_HOLDS_S and not is_outdated


def counted(
    record: SharedState, signal: Signal, reporter: str, *, began_at: float = 0.0, ended_at: float = 0.0
) -> SharedState:
    """Return the record after one result, counted as the store's script does, for when the store is away.

    Args:
        record: The record before it.
        signal: Its signal.
        reporter: Its reporter.
        began_at: When the call began; 0 if unknown.
        ended_at: When it ended; 0 if unknown.
    """
    breaker = record.breaker
    if not isinstance(breaker, Closed) or signal.effect in (Effect.NEUTRAL, Effect.MODEL):
        return record
    if record.override is not None and record.override.kind is not OverrideKind.FORCED_CLOSED:
        return record
    if signal.effect is Effect.SUCCESS:
        after = runs.after_success(breaker, record.acquittal, began_at=began_at, ended_at=ended_at)
        return record if after is breaker else replace(record, breaker=after)
    refuses = signal.refuses_credit
    after = runs.longer(breaker, reporter, refuses_credit=refuses, began_at=began_at, ended_at=ended_at)
    return replace(record, breaker=after)


def knowing(record: SharedState, told: tuple[int, float, float, float] | None, earlier: int = 0) -> SharedState:
    """Return the record with a batch's *told* evidence of the failures just counted, as in ``store.Batch``.

    ``earlier`` is the number of successes that did not end the batch's own run.
    """
    breaker = record.breaker
    if told is None or not isinstance(breaker, Closed) or not breaker.failures:
        return record
    evidence, earlier = breaker.evidence.joined(*told), breaker.earlier + earlier
    return replace(record, breaker=replace(breaker, evidence=evidence, earlier=earlier))


def answered(record: SharedState, calls: int, now: float) -> SharedState:
    """Return the record after this many answers to the open question, if no other process can answer."""
    breaker = record.breaker
    if not isinstance(breaker, Closed) or breaker.question is None:
        return record
    question = replace(breaker.question, answers=breaker.question.answers + calls, at=now - ANSWER_S)
    return replace(record, breaker=replace(breaker, question=question))


def asked_from_afar(record: SharedState, round_trip_s: float) -> SharedState:
    """Return the record with its new question adjusted to the distance of Redis; ``round_trip_s`` is to Redis."""
    breaker = record.breaker
    if not isinstance(breaker, Closed) or breaker.question is None:
        return record
    return replace(record, breaker=replace(breaker, question=breaker.question.from_afar(round_trip_s)))


def _after_older_writer(record: SharedState, now: float, policy: Policy) -> SharedState:
    """A success closes a half-open breaker, a check counts as one of ours, all other overwrites are corrected."""
    if record.legacy_news is News.CALL and record.phase(now) is BreakerState.HALF_OPEN:
        return now_closed(record, LEGACY, now)
    after = older_writers.insisted(record)
    if not older_writers.tells_of_recovery(record, now):
        return after
    after = replace(after, good_checks=record.good_checks + 1)
    is_waited_for = breakers.waits_for_trial(record.breaker, now=now, policy=policy)
    if after.good_checks < policy.good_checks or not is_waited_for:
        return after
    return now_closed(after, LEGACY, now, reason=CHECKS_SUCCEEDED)


def _excess(record: SharedState, now: float, policy: Policy) -> tuple[str, str] | None:
    breaker = record.breaker
    return (
        windows.excess(breaker.window, policy.limits(record.live_reporters), now)
        if isinstance(breaker, Closed)
        else None
    )


def _unwell(record: SharedState, message: str) -> SharedState:
    """The last call may have succeeded: the shown state is still the reason why the breaker opened."""
    state = OpenRouterState.SERVICE_UNAVAILABLE
    return replace(record, upstream=replace(record.upstream, state=state, message=message))


def _is_tripped(breaker: Closed, record: SharedState, policy: Policy) -> bool:
    if breaker.on_probation:
        return breaker.failures > 0
    wanted = min(policy.reporters_wanted, record.live_reporters)
    if _is_unreachable(record):
        wanted = max(wanted, policy.network_reporters)
    return _are_enough(breaker, record, policy) and len(breaker.run) >= wanted


def _judged(record: SharedState, breaker: Closed, now: float, policy: Policy, by: str) -> SharedState:
    """Return the outcome of enough failures: the fleet is asked, if there is anything to ask, and that decides."""
    question = breaker.question
    failures = runs.counting(breaker, record.live_reporters, record.calls_per_minute, policy)
    if breaker.on_probation or not breaker.evidence.began_at:
        return now_open(record, _last_error(record, now), by, now, policy)
    if question is None:
        question = questions.asked(breaker.evidence, record.acquittal, now)
        return replace(record, breaker=replace(breaker, question=question)) if failures >= breaker.want else record
    if not question.is_due(now):
        return record
    wanted = breakers.threshold(record.calls_per_minute, policy)
    if breaker.earlier and not questions.is_clear(failures, wanted, question.answers):
        # The next runs end as usual for a while, and ask about their own calls alone.
        return replace(record, breaker=runs.without(breaker), acquittal=Acquittal(now, now))
    match questions.verdict(failures, question.answers):
        case Verdict.OPEN:
            return now_open(record, _last_error(record, now), by, now, policy)
        case Verdict.ACQUITTED:
            acquittal = Acquittal(now, question.began_at)
            return replace(record, breaker=runs.without(breaker), acquittal=acquittal)
        case want:
            return replace(record, breaker=replace(breaker, question=None, want=want))


def are_of_too_few(record: SharedState, policy: Policy) -> bool:
    """Return whether a run of failures is long enough, but comes from too few of the live reporters."""
    breaker = record.breaker
    return isinstance(breaker, Closed) and runs.are_of_too_few(
        breaker, record.live_reporters, record.calls_per_minute, policy
    )


def _is_alone_in_silence(breaker: Closed, record: SharedState, now: float, policy: Policy) -> bool:
    """Return whether the missing reporters may just be idle: for long, no success has contradicted the failures.

    Only workers can tell, so those that cannot be asked count as if they were at work. Network errors need a second
    witness in any case.
    """
    is_local = _is_unreachable(record) and len(breaker.run) < policy.network_reporters
    if not breaker.evidence.began_at or record.mute_reporters or is_local:
        return False
    is_silent = now - max(breaker.evidence.since, record.acquittal.at) >= runs.SILENCE_S
    return is_silent and are_of_too_few(record, policy)


def _judged_in_silence(record: SharedState, breaker: Closed, now: float, policy: Policy, by: str) -> SharedState:
    """Return the outcome of failures of too few reporters: here one other worker that is at work contradicts them."""
    question = breaker.question
    if question is None:
        question = questions.asked(breaker.evidence, record.acquittal, now)
        return replace(record, breaker=replace(breaker, question=question))
    if not question.is_due(now):
        return record
    if question.answers > 0:
        # The run goes on. The fleet is asked again once it has been silent for as long again.
        return replace(record, breaker=replace(breaker, question=None), acquittal=Acquittal(now, question.began_at))
    return now_open(record, _last_error(record, now), by, now, policy)


def _are_enough(breaker: Closed, record: SharedState, policy: Policy) -> bool:
    return runs.are_enough(breaker, record.live_reporters, record.calls_per_minute, policy)


def _is_unreachable(record: SharedState) -> bool:
    return _reported(record) == ErrorType.NETWORK_ERROR


def _may_be_local(breaker: Closed, record: SharedState, now: float, policy: Policy) -> bool:
    """Return whether the only reporting worker has network errors: then a health check shows whose network it is.

    It is requested at most once a minute. If it has network errors too, it is the second reporter.
    """
    is_open_question = _are_enough(breaker, record, policy) and _is_unreachable(record)
    lately = max(record.check_wanted_at, record.upstream.checked_at)
    return is_open_question and now - lately > CHECK_HOLDS_S


def _reported(record: SharedState) -> str:
    """Return the error type in ``error_details``, or the state if that is unreadable."""
    told = row_of(record.upstream.error_details).get("error_type")
    state = record.upstream.state
    return words_of(told, WORD_MOST) or (OpenRouterState.ERROR if state is OpenRouterState.ACTIVE else state).value
