"""What the fleet shares about one scope, and how it changes.

Every function takes the record as it was read and returns the one that should follow; the store commits it only if
nobody changed it in between. A record that needs no change is returned as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from . import breaker as breakers
from . import limits, older
from . import question as questions
from . import run as runs
from . import window as windows
from .breaker import Breaker, Closed, HalfOpen, Open, Phase, Policy
from .hiding import without_keys
from .limits import Limit
from .override import Override, OverrideKind
from .parsing import row_of, text_of
from .question import ANSWER_S, NEVER, Acquittal, Verdict
from .signals import Effect, ErrorType, OpenRouterState, Signal

__all__ = [
    "Record",
    "Transition",
    "Upstream",
    "admitted_share",
    "after_trial",
    "answered",
    "block_s",
    "counted",
    "found_lately",
    "fresh",
    "holds_permit",
    "kept_visible",
    "knowing",
    "limited",
    "next_epoch",
    "now_closed",
    "now_half_open",
    "now_open",
    "overridden",
    "released",
    "reset",
    "settled",
    "with_permit",
    "without_permit",
]

KEPT_TRANSITIONS = 8
WORD_MOST = 64
CHECK_HOLDS_S = 60.0
"""For so long nobody may check again (the slot), so what the last health check found is taken to hold."""
KEY_WORKS = "Calls were refused as if the API key were invalid, but the key works"
OVERRIDE_ENDED = "override_ended"
LEGACY = "legacy worker"
"""Who changed the state, where an older writer did it without leaving a name."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """What is known of OpenRouter itself. Amounts are US dollars, times Unix seconds.

    Attributes:
        balance: What is left, or None where the key has no limit of its own.
        last_check_s: When anybody last wrote what it knows: a call of any worker, a health check, or whoever keeps an
            open state alive. Earlier systems take an older state for none.
        checked_s: The last check by the health service; 0 if there was none.
        amounts_s: When the balance and the usage were last known; 0 if they never were.
        error_details: JSON about the last error, or empty.
        rate_limit_reset_s: Calls are not permitted before, as the upstream said; 0 if it did not.
        claimed_reset_s: The same as an older writer says; see :attr:`limited_until_s`.
    """

    state: OpenRouterState = OpenRouterState.ACTIVE
    message: str = "No call has been made yet"
    balance: float | None = None
    usage_today: float | None = None
    usage_month: float | None = None
    last_check_s: float = 0.0
    last_api_call_s: float = 0.0
    last_success_s: float = 0.0
    error_details: str = ""
    rate_limit_reset_s: float = 0.0
    checked_s: float = 0.0
    amounts_s: float = 0.0
    claimed_reset_s: float = 0.0

    @property
    def limited_until_s(self) -> float:
        """Calls are not permitted before, whoever says so; 0 if nobody does."""
        return max(self.rate_limit_reset_s, older.claim_s(self))


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of the breaker; ``epoch`` is its number in the history."""

    epoch: int
    before: Phase
    after: Phase
    reason: str
    by: str
    at_s: float

    def __post_init__(self) -> None:
        # The name of a worker or a person: either may have put anything into it.
        object.__setattr__(self, "by", without_keys(self.by))


@dataclass(frozen=True, slots=True)
class Record:
    """The shared state of one scope.

    Attributes:
        epoch: Grows with every transition and never repeats; a result of an earlier epoch changes nothing.
        transitions: The last few, newest last.
        live_reporters: Workers that reported in the minute before the last report.
        override: What a person decided; it may have ended.
        fleet: The workers that were live when the breaker opened: so many wait for it to close.
        calls_per_minute: Of the whole fleet, as last measured, over a minute or longer; 0 in the first minute.
        legacy_open: What an older writer says of the breaker in ``circuit_breaker_open``, where that
            contradicts the breaker, and False where ``state`` is active over one that is not closed; else None.
        legacy_news: What it says of the upstream then.
        older_writer_s: When one was last noticed; 0 if none was.
        check_slot_s: The health check is taken by somebody until then.
        good_checks: Health checks in a row that found nothing wrong while the breaker was half-open.
        check_found: What the last health check found, whatever calls said since; None if there was none.
        check_wanted_s: When a call last gave reason to doubt the key or the credit, so that a check is wanted.
        limit: What stands behind a long rate limit.
        doubted_s: When the first call of this run of failures did; what was checked before says nothing about it.
        timed_until_s: Until when the time in each state is in the daily metrics; 0 if none has been put there.
        begun: In which epoch this state began in an empty Redis; 0 if an older version has begun it.
        version: Grows with each commit of the state, which adds it.
        acquittal: The last time that the fleet was asked, and enough of its calls were well.
    """

    breaker: Breaker = Closed()
    epoch: int = 0
    upstream: Upstream = Upstream()
    transitions: tuple[Transition, ...] = ()
    live_reporters: int = 0
    legacy_open: bool | None = None
    check_slot_s: float = 0.0
    good_checks: int = 0
    check_found: OpenRouterState | None = None
    check_wanted_s: float = 0.0
    calls_per_minute: float = 0.0
    fleet: int = 0
    override: Override | None = None
    timed_until_s: float = 0.0
    begun: int = 0
    version: int = 0
    doubted_s: float = 0.0
    legacy_news: older.News = older.News.NOTHING
    older_writer_s: float = 0.0
    limit: Limit = Limit()
    acquittal: Acquittal = NEVER

    def phase(self, now_s: float) -> Phase:
        """The effective state: what a person decided, else what is stored and the time."""
        standing = self.standing(now_s)
        if standing is not None:
            return Phase.OPEN if standing.is_open else Phase.CLOSED
        return breakers.phase(self.breaker, now_s)

    def kept_until_s(self, now_s: float) -> float:
        """The latest end of what keeps calls waiting, known by now; 0 if nothing does."""
        limit_s = self.upstream.limited_until_s if self.upstream.limited_until_s > now_s else 0.0
        open_s = self.breaker.until_s if isinstance(self.breaker, Open) else 0.0
        return max(limit_s, open_s, self.override.until_s if self.override else 0.0)

    def standing(self, now_s: float) -> Override | None:
        """The override, unless it has ended."""
        return self.override if self.override is not None and self.override.until_s > now_s else None


def block_s(record: Record, now_s: float) -> tuple[float, str] | None:
    """How long calls must wait and why, None where they may go (half-open: with a permit)."""
    standing = record.standing(now_s)
    if standing is not None and standing.is_open:
        return standing.until_s - now_s, standing.kind
    if standing is not None and standing.kind is OverrideKind.DISABLED:
        return None
    match record.breaker:
        case Open() as breaker if breaker.until_s > now_s and standing is None:
            return breaker.until_s - now_s, breaker.reason
        case _ if (until_s := record.upstream.limited_until_s) > now_s:
            return until_s - now_s, OpenRouterState.RATE_LIMITED
        case _:
            return None


def admitted_share(record: Record, *, now_s: float, policy: Policy) -> float:
    """Which share of the calls may go, from 0 to 1, while the breaker is closed.

    Just closed, as many as half-open; within the ramp it grows to all. While the last result is a failure it is back
    at its beginning: what fails is not met by more and more calls. Where health checks closed it on probation, no
    call has shown yet that it works: the ramp begins with the first success.
    """
    breaker = record.breaker
    if not isinstance(breaker, Closed) or not breaker.since_s or record.standing(now_s):
        return 1.0
    first = min(policy.permits / max(record.fleet, 1), 1.0)
    passed_s = now_s - breaker.since_s
    if breaker.on_probation or (breaker.failures and passed_s < policy.ramp_s):
        return first
    return min(first + (1 - first) * max(passed_s, 0.0) / policy.ramp_s, 1.0)


def settled(record: Record, *, now_s: float, policy: Policy, by: str) -> Record:
    """Draw the consequences of what was counted, and of what older writers claim.

    Whoever reads the record may commit this: a worker that counted the decisive failure and died is no loss.
    """
    if record.override is not None:
        return _under_override(record, record.override, now_s)
    if (watched := limits.watched(record, now_s)) is not record:
        return watched
    breaker = breakers.with_clock(record.breaker, now_s=now_s, policy=policy)
    if breaker is not record.breaker:
        return replace(record, breaker=breaker)
    match record.breaker:
        case Closed() if record.legacy_open:
            return now_open(record, _last_error(record, now_s), LEGACY, now_s, policy)
        case Closed() as breaker if breaker.refusals >= policy.refusals_wanted:
            return now_open(record, OpenRouterState.CREDITS_EXHAUSTED.value, by, now_s, policy)
        case Closed() as breaker if _is_tripped(breaker, record, policy):
            return _judged(record, breaker, now_s, policy, by)
        case Closed() as breaker if _may_be_local(breaker, record, now_s, policy):
            return replace(record, check_wanted_s=now_s)
        case Closed() as breaker if (
            breaker.window and policy.watches_rates and (found := _excess(record, now_s, policy))
        ):
            return now_open(_unwell(record, found[1]), found[0], by, now_s, policy)
        case Closed(on_probation=True) as breaker if record.upstream.last_success_s > breaker.since_s:
            return replace(record, breaker=replace(breaker, on_probation=False, since_s=now_s))
        case Open() | HalfOpen() if record.legacy_open is False:
            return _after_older_writer(record, now_s, policy)
        case _:
            return record


def overridden(record: Record, override: Override, now_s: float) -> Record:
    """The record once a person's decision stands; it replaces an earlier one."""
    fleet = record.live_reporters if isinstance(record.breaker, Closed) else record.fleet
    after = replace(record, override=override, fleet=fleet, legacy_open=None)
    return _told(after, record.phase(now_s), after.phase(now_s), override.kind, override.who, now_s)


def released(record: Record, *, by: str, now_s: float) -> Record:
    """The record once no override stands: the breaker is what it was, with a ramp where calls were refused."""
    if record.override is None:
        return record
    breaker = record.breaker
    if record.override.is_open and isinstance(breaker, Closed):
        breaker = Closed(trips=breaker.trips, since_s=now_s, on_probation=breaker.on_probation)
    before = Phase.OPEN if record.override.is_open else Phase.CLOSED
    after = replace(record, breaker=breaker, override=None, legacy_open=None)
    return _told(after, before, after.phase(now_s), OVERRIDE_ENDED, by, now_s)


def reset(record: Record, *, by: str, now_s: float) -> Record:
    """The record once a person has closed the breaker and ended the override; a rate limit stands."""
    record = released(record, by=by, now_s=now_s)
    if isinstance(record.breaker, Closed):
        return replace(record, breaker=runs.without(record.breaker))
    breaker = Closed(trips=record.breaker.trips, since_s=now_s)
    upstream = replace(record.upstream, state=OpenRouterState.ACTIVE, message=f"Reset by {by}", error_details="")
    return _moved(replace(record, upstream=upstream), breaker, "reset", by, now_s)


def _under_override(record: Record, override: Override, now_s: float) -> Record:
    if override.until_s <= now_s:
        return released(record, by=override.who, now_s=now_s)
    # An older writer knows of no override: what it made of the flag is written back.
    return record if record.legacy_open is None else replace(record, legacy_open=None)


def _last_error(record: Record, now_s: float) -> str:
    error_type = _reported(record)
    is_wrong = error_type == OpenRouterState.API_KEY_INVALID and found_lately(record, OpenRouterState.ACTIVE, now_s)
    return OpenRouterState.SERVICE_UNAVAILABLE.value if is_wrong else error_type


def found_lately(record: Record, state: OpenRouterState, now_s: float) -> bool:
    """Whether the last health check found that, and still speaks for it.

    A key that worked before the first call was refused may have been revoked since.
    """
    checked_s = record.upstream.checked_s
    is_outdated = state is OpenRouterState.ACTIVE and checked_s < record.doubted_s
    return record.check_found is state and now_s - checked_s <= CHECK_HOLDS_S and not is_outdated


def counted(record: Record, signal: Signal, reporter: str, *, began_s: float = 0.0, ended_s: float = 0.0) -> Record:
    """The record after one result, counted as the store's script counts it, for when the store is away.

    Args:
        record: Before it.
        signal: What it said.
        reporter: Whose it was.
        began_s: When the call began; 0 if nobody knows.
        ended_s: When it ended, likewise.
    """
    breaker = record.breaker
    if not isinstance(breaker, Closed) or signal.effect in (Effect.NEUTRAL, Effect.MODEL):
        return record
    if record.override is not None and record.override.kind is not OverrideKind.FORCED_CLOSED:
        return record
    if signal.effect is Effect.SUCCESS:
        after = runs.after_success(breaker, began_s=began_s, ended_s=ended_s)
        return record if after is breaker else replace(record, breaker=after)
    refuses = signal.refuses_credit
    after = runs.longer(breaker, reporter, refuses_credit=refuses, began_s=began_s, ended_s=ended_s)
    return replace(record, breaker=after)


def knowing(record: Record, told: tuple[int, float, float, float] | None) -> Record:
    """The record with what a batch has *told* of the failures just counted, as ``store.Batch`` has it."""
    breaker = record.breaker
    if told is None or not isinstance(breaker, Closed) or not breaker.failures:
        return record
    return replace(record, breaker=replace(breaker, evidence=breaker.evidence.joined(*told)))


def answered(record: Record, calls: int, now_s: float) -> Record:
    """The record once so many calls have answered the question that is out, where there are none but these to ask."""
    breaker = record.breaker
    if not isinstance(breaker, Closed) or breaker.question is None:
        return record
    question = replace(breaker.question, answers=breaker.question.answers + calls, at_s=now_s - ANSWER_S)
    return replace(record, breaker=replace(breaker, question=question))


def _after_older_writer(record: Record, now_s: float, policy: Policy) -> Record:
    """A call that succeeded closes a half-open breaker, a check counts as one of ours, all else is put right."""
    if record.legacy_news is older.News.CALL and record.phase(now_s) is Phase.HALF_OPEN:
        return now_closed(record, LEGACY, now_s)
    after = older.insisted(record)
    if not older.tells_of_recovery(record, now_s):
        return after
    after = replace(after, good_checks=record.good_checks + 1)
    is_waited_for = breakers.waits_for_trial(record.breaker, now_s=now_s, policy=policy)
    if after.good_checks < policy.good_checks or not is_waited_for:
        return after
    return now_closed(after, LEGACY, now_s, on_probation=True)


def _excess(record: Record, now_s: float, policy: Policy) -> tuple[str, str] | None:
    breaker = record.breaker
    return (
        windows.excess(breaker.window, policy.limits(record.live_reporters), now_s)
        if isinstance(breaker, Closed)
        else None
    )


def _unwell(record: Record, message: str) -> Record:
    """The last call may have been a good one: what is shown is why the breaker opened all the same."""
    state = OpenRouterState.SERVICE_UNAVAILABLE
    return replace(record, upstream=replace(record.upstream, state=state, message=message))


def _is_tripped(breaker: Closed, record: Record, policy: Policy) -> bool:
    if breaker.on_probation:
        return breaker.failures > 0
    wanted = min(policy.reporters_wanted, record.live_reporters)
    if _is_unreachable(record):
        wanted = max(wanted, policy.network_reporters)
    return _are_enough(breaker, record, policy) and len(breaker.run) >= wanted


def _judged(record: Record, breaker: Closed, now_s: float, policy: Policy, by: str) -> Record:
    """What follows from enough failures: the fleet is asked, where there is anything to ask of, and that decides."""
    question = breaker.question
    failures = runs.counting(breaker, record.live_reporters, record.calls_per_minute, policy)
    if breaker.on_probation or not breaker.evidence.began_s:
        return now_open(record, _last_error(record, now_s), by, now_s, policy)
    if question is None:
        question = questions.asked(breaker.evidence, record.acquittal, now_s)
        return replace(record, breaker=replace(breaker, question=question)) if failures >= breaker.want else record
    if not question.is_due(now_s):
        return record
    match questions.verdict(failures, question.answers):
        case Verdict.OPEN:
            return now_open(record, _last_error(record, now_s), by, now_s, policy)
        case Verdict.ACQUITTED:
            acquittal = Acquittal(now_s, question.began_s)
            return replace(record, breaker=runs.without(breaker), acquittal=acquittal)
        case want:
            return replace(record, breaker=replace(breaker, question=None, want=want))


def _are_enough(breaker: Closed, record: Record, policy: Policy) -> bool:
    return runs.are_enough(breaker, record.live_reporters, record.calls_per_minute, policy)


def _is_unreachable(record: Record) -> bool:
    return _reported(record) == ErrorType.NETWORK_ERROR


def _may_be_local(breaker: Closed, record: Record, now_s: float, policy: Policy) -> bool:
    """Whether the only worker that reports does not get through: then a health check says whose network it is.

    It is asked for once a minute at the most. Where it does not get through either, it is the second reporter.
    """
    is_open_question = _are_enough(breaker, record, policy) and _is_unreachable(record)
    lately_s = max(record.check_wanted_s, record.upstream.checked_s)
    return is_open_question and now_s - lately_s > CHECK_HOLDS_S


def _reported(record: Record) -> str:
    """The error type in ``error_details``, or the state where nothing that can be read is there."""
    told = row_of(record.upstream.error_details).get("error_type")
    state = record.upstream.state
    return text_of(told, WORD_MOST) or (OpenRouterState.ERROR if state is OpenRouterState.ACTIVE else state).value


def kept_visible(record: Record, now_s: float) -> Record:
    """The record that earlier systems go on to see while calls must wait.

    They take a state whose ``last_check`` is older than five minutes for none at all, and let their calls go.
    """
    if record.phase(now_s) is Phase.CLOSED and block_s(record, now_s) is None:
        return record
    return replace(record, upstream=replace(record.upstream, last_check_s=now_s))


def with_permit(record: Record, owner: str, *, now_s: float, policy: Policy) -> Record | None:
    """The record once *owner* holds one of the fleet's permits, None if it cannot have one.

    While a rate limit lasts nobody gets one: the call would be refused and tell nothing. But who has one may renew
    it, and where the limit is a long one somebody looks every few minutes whether it still stands.
    """
    if record.override is not None:
        return None
    is_look = limits.is_look_due(record, now_s)
    if is_look and isinstance(record.breaker, Closed):
        return limits.looked(record, owner, now_s)
    breaker = breakers.with_permit(record.breaker, owner, now_s=now_s, policy=policy)
    if breaker is None:
        return None
    is_held = isinstance(record.breaker, HalfOpen) and owner in record.breaker.permits
    if record.upstream.limited_until_s > now_s and not is_held and not is_look:
        return None
    if is_look and not is_held:
        record = limits.looked(record, owner, now_s)
    if isinstance(record.breaker, HalfOpen):
        return replace(record, breaker=breaker)
    return _moved(record, breaker, "reset_timeout", owner, now_s)


def holds_permit(record: Record, owner: str) -> bool:
    """Whether *owner* has leave to try one call."""
    return owner == record.limit.looker or owner in getattr(record.breaker, "permits", ())


def without_permit(record: Record, owner: str) -> Record:
    return replace(record, breaker=breakers.without_permit(record.breaker, owner))


def after_trial(record: Record, signal: Signal, owner: str, *, now_s: float, policy: Policy) -> Record:
    """The record after the trial call of *owner* ended; a call whose permit is gone decides nothing.

    Nor does one that met a rate limit: somebody answered, but not the question. Its permit goes back, and calls wait
    until the limit is over. One that succeeds although a long limit stood ends that too.
    """
    is_success, is_void = signal.effect is Effect.SUCCESS, signal.effect in (Effect.NEUTRAL, Effect.MODEL)
    record = limits.after_look(record, owner, is_success=is_success, is_void=is_void, now_s=now_s)
    if not isinstance(record.breaker, HalfOpen) or owner not in record.breaker.permits:
        return record
    match signal.effect:
        case _ if record.override is not None:
            return without_permit(record, owner)
        case Effect.SUCCESS:
            return now_closed(record, owner, now_s)
        case Effect.NEUTRAL | Effect.MODEL | Effect.RATE_LIMIT:
            return without_permit(record, owner)
        case _:
            reason = signal.reported.value if signal.reported else OpenRouterState.ERROR.value
            return now_open(record, reason, owner, now_s, policy)


def limited(record: Record, signal: Signal, now_s: float, *, by: str = "") -> Record:
    """The record after the platform's rate limit told the reporter *by* how long to wait; the later time wins."""
    upstream = replace(record.upstream, state=OpenRouterState.RATE_LIMITED, message=signal.message)
    after = limits.claimed(record, signal.wait_s or 0.0, by=by, now_s=now_s)
    if after is record:
        return record  # nobody is held for it
    return replace(after, upstream=replace(upstream, rate_limit_reset_s=after.upstream.rate_limit_reset_s))


def fresh(now_s: float) -> Record:
    """The record of a fleet about which nothing is known yet."""
    return Record(epoch=next_epoch(0, now_s))


def next_epoch(epoch: int, now_s: float) -> int:
    """An epoch that was never used, even if the old one was lost with the data."""
    return max(epoch + 1, int(now_s * 1000))


def now_open(record: Record, reason: str, by: str, now_s: float, policy: Policy) -> Record:
    share = _share(record.epoch)
    breaker = breakers.opened(record.breaker, reason=reason, now_s=now_s, policy=policy, share=share)
    if isinstance(record.breaker, Closed):
        record = replace(record, fleet=record.live_reporters)
    seen = record.upstream
    if seen.state is OpenRouterState.API_KEY_INVALID and reason == OpenRouterState.SERVICE_UNAVAILABLE:
        seen = replace(seen, state=OpenRouterState.SERVICE_UNAVAILABLE, message=KEY_WORKS)
    record = replace(record, upstream=older.unwell(seen, reason))
    return _moved(record, breaker, reason, by, now_s)


def now_half_open(record: Record, breaker: Open, by: str, now_s: float) -> Record:
    """The record whose open breaker may be tried before its wait is over, for a health check found it well."""
    after = HalfOpen(
        breaker.reason, breaker.opened_at_s, breaker.trips, breaker.failures, {}, now_s, until_s=breaker.until_s
    )
    return _moved(record, after, "check_succeeded", by, now_s)


def _share(number: int) -> float:
    """A number from 0 up to 1 that looks drawn by lot, and is the same for all who decide on the same record."""
    return number * 0x9E3779B1 % 2**32 / 2**32


def now_closed(record: Record, by: str, now_s: float, *, on_probation: bool = False) -> Record:
    breaker = Closed(trips=getattr(record.breaker, "trips", 0), since_s=now_s, on_probation=on_probation)
    upstream = replace(
        record.upstream,
        state=OpenRouterState.ACTIVE,
        message="Health checks succeed" if on_probation else "Service active",
        error_details="",
        last_success_s=record.upstream.last_success_s if on_probation else now_s,
        # What one trial call was told to wait stands, though another succeeded.
        rate_limit_reset_s=record.upstream.rate_limit_reset_s if record.upstream.rate_limit_reset_s > now_s else 0.0,
    )
    reason = "checks_succeeded" if on_probation else "trial_succeeded"
    return _moved(replace(record, upstream=upstream), breaker, reason, by, now_s)


def _moved(record: Record, breaker: Breaker, reason: str, by: str, now_s: float) -> Record:
    # What readers saw: an open breaker whose time has passed was half-open already, but nobody wrote that down.
    before = Phase.OPEN if isinstance(record.breaker, Open) else record.phase(now_s)
    after = replace(record, breaker=breaker, legacy_open=None, legacy_news=older.News.NOTHING, good_checks=0)
    return _told(after, before, breakers.phase(breaker, now_s), reason, by, now_s)


def _told(record: Record, before: Phase, after: Phase, reason: str, by: str, now_s: float) -> Record:
    """The record with one more transition, in a new epoch."""
    # Counted on, so that whoever decides on the same record comes to the same, be it only to show it.
    epoch = record.epoch + 1 if record.epoch else next_epoch(0, now_s)
    change = Transition(epoch, before, after, reason, by, now_s)
    upstream = replace(record.upstream, last_check_s=now_s)
    kept = (*record.transitions, change)[-KEPT_TRANSITIONS:]
    return replace(record, epoch=epoch, transitions=kept, upstream=upstream)
