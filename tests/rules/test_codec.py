"""Encoding and decoding of the shared state."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrouter_guard.rules import evaluation
from openrouter_guard.rules.admission import fleet_refusal
from openrouter_guard.rules.breaker import Breaker, BreakerState, Closed, HalfOpen, Open, Policy
from openrouter_guard.rules.codec import FIELDS, encode, iso, parse, parse_iso
from openrouter_guard.rules.parsing import YEAR_2000_S
from openrouter_guard.rules.shared_state import SharedState, Transition, Upstream
from openrouter_guard.rules.signals import OpenRouterState

NOW_S = 1_800_000_000.0
DAY_S = 86_400.0
# Microseconds are what ISO 8601 keeps.
# No time before 2000 is believed, so no record holds one.
past = st.integers(round((YEAR_2000_S - NOW_S) * 1e6), 0).map(
    lambda micros: round(NOW_S + micros / 1e6, 6) if micros else 0.0
)
soon = st.integers(1, 3 * 10**9).map(lambda micros: round(NOW_S + micros / 1e6, 6))
ahead = st.integers(1, 9 * 10**10).map(lambda micros: round(NOW_S + micros / 1e6, 6))
counts = st.integers(0, 10**6)
words = st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=12)
texts = st.text(max_size=60)
amounts = st.none() | st.floats(-1e6, 1e6)

breakers: st.SearchStrategy[Breaker] = (
    st.builds(Closed, counts, st.frozensets(words, max_size=3), counts, past, st.booleans(), counts)
    | st.builds(Open, words, past, past | ahead, counts, counts)
    | st.builds(HalfOpen, words, past, counts, counts, st.dictionaries(words, past | soon, max_size=3), past)
)
upstreams = st.builds(
    Upstream,
    st.sampled_from(OpenRouterState),
    texts,
    amounts,
    amounts,
    amounts,
    past,
    past,
    past,
    texts,
    past | ahead,
)
phases = st.sampled_from(BreakerState)
transitions = st.builds(Transition, st.integers(1, 2**40), phases, phases, words, words, past)
records = st.builds(
    SharedState, breakers, st.integers(0, int(NOW_S * 1000)), upstreams, st.lists(transitions, max_size=8).map(tuple),
    st.just(0), st.none(), soon, st.integers(0, 9), st.none() | st.sampled_from(OpenRouterState), past, st.just(0.0),
    st.integers(0, 99),
)  # fmt: skip


NASTY = st.sampled_from(
    [
        "nan", "1e400", "-1000000", "9" * 400, "9" * 5000, "٣", "[" * 5000, "null", "true", "open", "half_open",
        "2500-01-01T00:00:00+00:00", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", '{"a": 1e999}',
        '[{"epoch": 1e999, "from": "closed", "to": "open", "reason": {}, "by": 7, "at": null}]',
        '{"kind": "forced_open", "who": [], "why": null, "until": 1e300}', "1:2:3:4:a b:c", "9" * 99 + ":1:1:1:a",
    ]
)  # fmt: skip


def rounded(record: SharedState) -> dict[str, str]:
    """What the hash holds; a time that came through a float may be off by a microsecond, and no more."""
    return {name: value[:-9] if "+00:00" in value else value for name, value in encode(record).items()}


@given(records)
def test_what_is_written_is_read(record: SharedState) -> None:
    read = parse({name: value for name, value in encode(record).items() if value}, NOW_S)
    assert parse(encode(read), NOW_S) == read
    assert type(read.breaker) is type(record.breaker)
    assert rounded(read).keys() == rounded(record).keys()


@given(st.dictionaries(st.sampled_from(FIELDS), st.text() | NASTY))
def test_no_hash_whatever_is_in_it_stops_a_reader(fields: dict[str, str]) -> None:
    evaluate = evaluation.evaluate(parse(fields, NOW_S), now=NOW_S, policy=Policy(), by="me")
    encode(evaluate)


def test_only_known_fields_are_written() -> None:
    assert set(encode(SharedState())) <= set(FIELDS)


def test_what_an_existing_writer_leaves_is_understood() -> None:
    record = parse(
        {
            "state": "service_unavailable",
            "message": "Worker reported: service_unavailable",
            "last_check": "2026-11-24T10:00:00+00:00",
            "consecutive_failures": "5",
            "circuit_breaker_open": "true",
            "error_details": "{'error_type': 'service_unavailable'}",
        },
        NOW_S,
    )
    assert record.legacy_open is True
    assert record.breaker == Closed(5)
    assert record.upstream.state is OpenRouterState.SERVICE_UNAVAILABLE
    assert record.upstream.last_check_at == parse_iso("2026-11-24T10:00:00Z")


def test_existing_readers_find_their_fields_in_every_state() -> None:
    for breaker in (Closed(2), Open("error", 1, 2), HalfOpen("error", 1)):
        fields = encode(SharedState(breaker))
        assert fields["circuit_breaker_open"] == str(not isinstance(breaker, Closed)).lower()
        assert int(fields["consecutive_failures"]) >= 0
        assert fields["state"] in set(OpenRouterState)


def limit(ahead_s: float) -> dict[str, str]:
    return {"limited_until": iso(NOW_S + ahead_s)}


def older_limit(ahead_s: float) -> dict[str, str]:
    return {"state": "rate_limited", "rate_limit_reset": iso(NOW_S + ahead_s)}


def override(ahead_s: float) -> dict[str, str]:
    row = {"kind": "forced_open", "who": "ann", "why": "a test", "until": NOW_S + ahead_s}
    return {"override": json.dumps(row)}


def opened(ahead_s: float) -> dict[str, str]:
    return {"breaker": "open", "opened_at": iso(NOW_S - 1), "open_until": iso(NOW_S + ahead_s), "trips": "1"}


@pytest.mark.parametrize(
    ("fields", "longest_s"),
    [
        pytest.param(limit, 25 * 3600, id="a rate limit"),
        pytest.param(older_limit, 25 * 3600, id="a rate limit of an older writer"),
        pytest.param(override, 30 * DAY_S, id="an override"),
        pytest.param(opened, 960 * 1.1, id="an open breaker"),
    ],
)
@pytest.mark.parametrize("ahead_s", [2 * DAY_S, 400 * DAY_S, 1000 * 365 * DAY_S])
def test_no_stored_time_holds_calls_back_longer_than_it_may(
    fields: Callable[[float], dict[str, str]], longest_s: float, ahead_s: float
) -> None:
    def wait_s(ahead_s: float) -> float:
        record = evaluation.evaluate(parse(fields(ahead_s), NOW_S), now=NOW_S, policy=Policy(), by="me")
        return (fleet_refusal(record, NOW_S) or (0.0, ""))[0]

    assert wait_s(longest_s - 1) == pytest.approx(longest_s - 1, abs=1e-3)
    assert wait_s(max(ahead_s, longest_s * 1.5)) <= 120


@pytest.mark.parametrize("name", ["last_check", "last_api_call", "last_success", "closed_at", "check_wanted"])
def test_a_past_that_is_yet_to_come_is_long_ago(name: str) -> None:
    now, later = parse({name: iso(NOW_S + 59)}, NOW_S), parse({name: iso(NOW_S + 61)}, NOW_S)
    assert encode(now)[name]
    assert encode(later)[name] == ""


@pytest.mark.parametrize("epoch", [str(2**53), "1e999", "-1", str(int((NOW_S + DAY_S) * 1000) + 1)])
def test_no_epoch_is_far_ahead_of_the_clock(epoch: str) -> None:
    assert parse({"epoch": epoch}, NOW_S).epoch == 0
    assert parse({"epoch": str(int(NOW_S * 1000))}, NOW_S).epoch == int(NOW_S * 1000)


def test_one_damaged_row_costs_that_row() -> None:
    good = {"epoch": 5, "from": "closed", "to": "open", "reason": "timeout", "by": "wa", "at": iso(NOW_S - 5)}
    rows = [good, good | {"epoch": 1e999}, good | {"to": "ajar"}, 7, None]
    (kept,) = parse({"transitions": json.dumps(rows).replace("Infinity", "1e999")}, NOW_S).transitions
    assert kept == Transition(5, BreakerState.CLOSED, BreakerState.OPEN, "timeout", "wa", NOW_S - 5)
