"""Single models: when they cool down, and when their failures count for all. At 1,000 s on the Redis clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrouter_guard.rules import models, redaction
from openrouter_guard.rules.breaker import Policy
from openrouter_guard.rules.models import (
    FREE,
    Model,
    Models,
    Notes,
    Run,
    are_any_back,
    back_since,
    model_refusal,
    of_fleet,
    parse,
    run_of,
)
from openrouter_guard.rules.signals import NEUTRAL, SUCCESS, Effect, ErrorType, Signal, SignalScope

NOW_S = 1_000.0
POLICY = Policy(failure_threshold=5, cooldown_s=5, max_cooldown_s=60)
DOWN = Signal(Effect.FAILURE, ErrorType.SERVICE_UNAVAILABLE, about=SignalScope.MODEL)
FULL = Signal(Effect.NEUTRAL, ErrorType.RATE_LIMITED, wait_s=9.0, about=SignalScope.MODEL)
CAPPED = Signal(Effect.NEUTRAL, ErrorType.RATE_LIMITED, wait_s=3_600.0, about=SignalScope.FREE_MODELS)
TIMEOUT = Signal(Effect.FAILURE, ErrorType.TIMEOUT)
FINE = Model(seen_at=NOW_S)
MANY = {str(number): FINE for number in range(models.FINE_KEPT)}


def failing(times: int, ago_s: float = 0.0) -> Model:
    return Model(seen_at=NOW_S - ago_s, failures=times, failed_at=NOW_S - ago_s, reason="service_unavailable")


def noted(known: Models, name: str, *runs: Run) -> Models:
    notes = Notes(known, NOW_S)
    for run in runs:
        notes.note(name, run, NOW_S)
    return notes.models


def after(signals: list[Signal], model: str = "a") -> Models:
    notes = Notes({}, NOW_S)
    for signal in signals:
        notes.take(signal, model, NOW_S)
    return notes.models


@pytest.mark.parametrize(
    ("signals", "wait_s"),
    [
        pytest.param([DOWN] * 4, None, id="four failures in a row may be chance"),
        pytest.param([DOWN] * 5, 5, id="five are not"),
        pytest.param([DOWN] * 6, 10, id="each further one doubles the wait"),
        pytest.param([DOWN] * 50, 60, id="up to the longest"),
        pytest.param([DOWN] * 4 + [SUCCESS] + [DOWN] * 4, None, id="a success ends the run"),
        pytest.param([TIMEOUT] * 9, None, id="what names no provider is the fleet's business"),
        pytest.param([FULL], 9, id="a provider's full pool, as long as it says"),
        pytest.param([Signal(Effect.NEUTRAL, about=SignalScope.MODEL)], 5, id="or a moment, where it does not"),
        pytest.param([FULL, SUCCESS], 9, id="a call that was under way takes no wait back"),
        pytest.param([NEUTRAL], None, id="the caller's own mistake"),
    ],
)
def test_a_model_waits(signals: list[Signal], wait_s: float | None) -> None:
    found = model_refusal(after(signals), "a", now=NOW_S, policy=POLICY)
    assert (found and found[0]) == wait_s
    assert model_refusal(after(signals), "b", now=NOW_S, policy=POLICY) is None


def test_the_wait_ends_by_time_alone() -> None:
    found = after([DOWN] * 5)
    assert model_refusal(found, "a", now=NOW_S + 4.9, policy=POLICY) is not None
    assert model_refusal(found, "a", now=NOW_S + 5, policy=POLICY) is None


def test_once_it_is_over_a_few_try_until_one_succeeds() -> None:
    found = after([DOWN] * 5)
    assert back_since(found, "a", now=NOW_S + 4.9, policy=POLICY) is None
    assert back_since(found, "a", now=NOW_S + 6, policy=POLICY) == (NOW_S + 5, True)
    assert are_any_back(found, now=NOW_S + 6, policy=POLICY)
    assert back_since(found, "b", now=NOW_S + 6, policy=POLICY) is None
    # Nobody waits for ever for a success that is never told.
    assert back_since(found, "a", now=NOW_S + 5 + 2 * POLICY.ramp_s, policy=POLICY) is None
    assert back_since(after([DOWN] * 5 + [SUCCESS]), "a", now=NOW_S + 6, policy=POLICY) is None


def test_after_their_cap_no_single_free_model_is_waited_for() -> None:
    found = after([CAPPED], model="a:free")
    assert back_since(found, "b:free", now=NOW_S + 3_601, policy=POLICY) == (NOW_S + 3_600, False)


def test_the_cap_of_the_free_models_is_theirs_together() -> None:
    found = after([CAPPED], model="a:free")
    assert model_refusal(found, "b:free", now=NOW_S, policy=POLICY) == (3_600, "rate_limited")
    assert model_refusal(found, "a", now=NOW_S, policy=POLICY) is None
    assert set(models.cooling(found, now=NOW_S, policy=POLICY)) == {FREE}


@pytest.mark.parametrize(
    ("known", "counts"),
    [
        pytest.param({"a": failing(1), "b": FINE}, False, id="one of two models fails"),
        pytest.param({"a": failing(9), "b": FINE}, False, id="however often"),
        pytest.param({"a": failing(1), "b": failing(1), "c": FINE}, True, id="two fail"),
        pytest.param({"a": failing(1), "b": failing(1, ago_s=61), "c": FINE}, False, id="one of them long ago"),
        pytest.param({"a": failing(1)}, True, id="the only one that is in use"),
        pytest.param({"a": failing(1), "b": Model(seen_at=NOW_S - 601)}, True, id="the other was not called lately"),
        pytest.param({"a": failing(1), FREE: Model(seen_at=NOW_S)}, True, id="the cap of the free is no model"),
    ],
)
def test_when_it_is_the_upstreams(known: Models, counts: bool) -> None:
    assert of_fleet(DOWN, known, NOW_S).effect is (Effect.FAILURE if counts else Effect.MODEL)


@pytest.mark.parametrize("signal", [SUCCESS, NEUTRAL, TIMEOUT, FULL, CAPPED])
def test_nothing_else_is_weighed_so(signal: Signal) -> None:
    assert of_fleet(signal, {"a": FINE, "b": FINE}, NOW_S) is signal


@pytest.mark.parametrize(
    ("known", "run", "news"),
    [
        pytest.param({}, Run(ended=True), True, id="a model that nobody knows"),
        pytest.param({"a": FINE}, Run(ended=True), False, id="it works, as ever"),
        pytest.param({"a": failing(1)}, Run(ended=True), True, id="it works again"),
        pytest.param({"a": FINE}, Run(failures=1), True, id="it fails"),
        pytest.param({"a": FINE}, Run(until=9.0), True, id="it waits"),
        pytest.param({"a": Model(seen_at=NOW_S - 61)}, Run(ended=True), True, id="it is still in use"),
        pytest.param({}, Run(), False, id="a name that somebody mistyped"),
        pytest.param({"a": Model(seen_at=NOW_S - 61)}, Run(), False, id="an answer that says nothing of it"),
        pytest.param(MANY, Run(ended=True), False, id="one more of many that work"),
        pytest.param(MANY, Run(failures=1), True, id="one more, that fails"),
        pytest.param({**MANY, "0": failing(1)}, Run(ended=True), True, id="where there is room, one more that works"),
    ],
)
def test_what_is_worth_telling(known: Models, run: Run, news: bool) -> None:
    assert Notes(known, NOW_S).is_news("a", run, NOW_S) is news


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        pytest.param("openai/gpt-4o:free", "openai/gpt-4o:free", id="a name as it should be"),
        pytest.param("openai/gpt-4o\ud83d", "openai/gpt-4o\ufffd", id="half an emoji is another name"),
        pytest.param("a\x00\nb\u202e", "a\ufffd\ufffdb\ufffd", id="nothing that cannot be printed"),
        pytest.param("caf\u0065\u0301", "caf\u00e9", id="one form of Unicode"),
        pytest.param("a/" + "b" * 9_999, "a/" + "b" * 126, id="cut where no name goes"),
        pytest.param("  :free ", "free", id="what begins with a colon is ours"),
        pytest.param(None, "", id="no name"),
        pytest.param(b"openai/gpt-4o", "", id="no text"),
    ],
)
def test_a_name_that_a_user_typed(name: object, kept: str) -> None:
    assert models.clean(name) == kept


@given(st.text(st.characters()))
def test_any_name_is_one_that_can_be_kept(name: str) -> None:
    kept = models.clean(name)
    assert kept.isprintable()
    assert len(kept.encode()) <= 4 * models.NAME_MOST
    assert models.clean(kept) == kept
    found = parse({kept: '{"seen_s": 1767225600}'}, 1_767_225_600)
    assert list(found) == ([kept] if kept else [])


def test_a_caller_may_write_the_name_as_users_do() -> None:
    found = {models.clean("cafe\u0301:free"): Model(until=NOW_S + 9), FREE: Model(until=NOW_S + 5)}
    assert model_refusal(found, " caf\u00e9:free", now=NOW_S, policy=POLICY) == (9, "error")
    assert model_refusal(found, "b:free", now=NOW_S, policy=POLICY) == (5, "error")
    assert model_refusal(found, FREE, now=NOW_S, policy=POLICY) == (5, "error")


def test_no_more_are_known_than_are_kept_however_many_fail() -> None:
    notes = Notes({}, NOW_S)
    for number in range(20_000):
        notes.note(str(number), Run(failures=1), NOW_S + number / 1000)
    assert len(notes.models) <= 2 * models.KEPT
    assert "19999" in notes.models


signals = st.sampled_from([SUCCESS, NEUTRAL, DOWN, FULL, TIMEOUT])


@given(st.lists(signals, max_size=20), st.integers(0, 9))
def test_a_batch_comes_to_the_same_as_its_results_one_by_one(results: list[Signal], before: int) -> None:
    known: Models = {"a": failing(before)}
    batch, one_by_one = Run(), known
    for signal in results:
        run = run_of(signal, NOW_S)
        batch.add(run)
        one_by_one = noted(one_by_one, "a", run)
    assert noted(known, "a", batch)["a"] == one_by_one["a"]


@given(
    st.dictionaries(
        st.text(), st.text() | st.sampled_from(["{}", "[]", "1", '{"seen_s": "x"}', '{"until_s": 1e999}'])
    )
)
def test_no_hash_whatever_is_in_it_stops_a_reader(found: dict[str, str]) -> None:
    models.cooling(parse(found, NOW_S), now=NOW_S, policy=POLICY)


def test_a_name_holds_no_secret_of_which_this_process_was_told_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_own", ())
    name = "somebody/hunter2-of-mine-1"
    assert models.clean(name) == name
    redaction.remember(["hunter2-of-mine-1"])
    assert models.clean(name) == "somebody/[key]"
