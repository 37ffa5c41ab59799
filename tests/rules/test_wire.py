"""The record and its form in the hash."""

from hypothesis import given
from hypothesis import strategies as st

from openrouter_guard.rules.breaker import Breaker, Closed, HalfOpen, Open, Phase
from openrouter_guard.rules.record import Record, Transition, Upstream
from openrouter_guard.rules.signals import OpenRouterState
from openrouter_guard.rules.wire import FIELDS, encode, parse, unix_s

# Microseconds are what ISO 8601 keeps.
times = st.integers(1, 4_000_000_000_000_000).map(lambda micros: micros / 1e6)
counts = st.integers(0, 10**6)
words = st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=12)
amounts = st.none() | st.floats(-1e6, 1e6)

breakers: st.SearchStrategy[Breaker] = (
    st.builds(Closed, counts, st.frozensets(words, max_size=3), counts, times, st.booleans(), counts)
    | st.builds(Open, words, times, times, counts, counts)
    | st.builds(HalfOpen, words, times, counts, counts, st.dictionaries(words, st.floats(1, 1e9), max_size=3), times)
)
upstreams = st.builds(
    Upstream,
    st.sampled_from(OpenRouterState),
    st.text(),
    amounts,
    amounts,
    amounts,
    times,
    times,
    times,
    st.text(),
    times,
)
phases = st.sampled_from(Phase)
transitions = st.builds(Transition, counts, phases, phases, st.text(), st.text(), times)
records = st.builds(
    Record, breakers, st.integers(0, 2**53), upstreams, st.lists(transitions, max_size=8).map(tuple), st.just(0),
    st.none(), times, st.integers(0, 9), st.none() | st.sampled_from(OpenRouterState), times, st.just(0.0),
    st.integers(0, 99),
)  # fmt: skip


def rounded(record: Record) -> dict[str, str]:
    """What the hash holds; a time that came through a float may be off by a microsecond, and no more."""
    return {name: value[:-9] if "+00:00" in value else value for name, value in encode(record).items()}


@given(records)
def test_what_is_written_is_read(record: Record) -> None:
    read = parse({name: value for name, value in encode(record).items() if value})
    assert parse(encode(read)) == read
    assert type(read.breaker) is type(record.breaker)
    assert rounded(read).keys() == rounded(record).keys()


@given(st.dictionaries(st.sampled_from(FIELDS), st.text()))
def test_no_hash_whatever_is_in_it_stops_a_reader(fields: dict[str, str]) -> None:
    parse(fields)


def test_only_known_fields_are_written() -> None:
    assert set(encode(Record())) <= set(FIELDS)


def test_what_an_existing_writer_leaves_is_understood() -> None:
    record = parse(
        {
            "state": "service_unavailable",
            "message": "Worker reported: service_unavailable",
            "last_check": "2026-11-24T10:00:00+00:00",
            "consecutive_failures": "5",
            "circuit_breaker_open": "true",
            "error_details": "{'error_type': 'service_unavailable'}",
        }
    )
    assert record.legacy_open is True
    assert record.breaker == Closed(5)
    assert record.upstream.state is OpenRouterState.SERVICE_UNAVAILABLE
    assert record.upstream.last_check_s == unix_s("2026-11-24T10:00:00Z")


def test_existing_readers_find_their_fields_in_every_state() -> None:
    for breaker in (Closed(2), Open("error", 1, 2), HalfOpen("error", 1)):
        fields = encode(Record(breaker))
        assert fields["circuit_breaker_open"] == str(not isinstance(breaker, Closed)).lower()
        assert int(fields["consecutive_failures"]) >= 0
        assert fields["state"] in set(OpenRouterState)
