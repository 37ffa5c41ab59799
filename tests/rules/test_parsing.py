"""Parsers of foreign input never raise, and return nothing out of bounds."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrouter_guard.rules.parsing import json_of, number, object_of, parse_moment, row_of, text_of, whole

NOW_S = 1_800_000_000.0
ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.binary(), st.text(st.characters(exclude_categories=())),
    st.lists(st.integers()), st.dictionaries(st.text(), st.integers()),
    st.sampled_from(["nan", "1e999", "0x10", "1_000", "٣", "9" * 5000, 10**5000, "[" * 5000, "2500-01-01", b"\xff"]),
)  # fmt: skip


@given(ANYTHING)
def test_no_reader_raises_and_each_stays_within_its_bounds(raw: object) -> None:
    assert len(text_of(raw, 10)) <= 10
    text_of(raw).encode()
    found = number(raw, -1.0, 1e6)
    assert found is None or -1.0 <= found <= 1e6
    assert 0 <= whole(raw, 100) <= 100
    at = parse_moment(raw, NOW_S)
    assert at == 0.0 or 946_684_800 <= at <= NOW_S + 60
    assert isinstance(object_of(raw), dict)
    assert isinstance(row_of(raw), dict)


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        pytest.param(lambda: text_of(b"caf\xc3\xa9 \xff"), "café \ufffd", id="a byte that is no text is marked"),
        pytest.param(lambda: text_of("a\ud800b"), "a?b", id="half a character is marked"),
        pytest.param(lambda: number("1.5", 0, 10), 1.5, id="a number"),
        pytest.param(lambda: number(b" 2e0 ", 0, 10), 2.0, id="a number as bytes"),
        pytest.param(lambda: number("nan", 0, 10), None, id="no number"),
        pytest.param(lambda: number("1_0", 0, 100), None, id="a number as only Python reads it"),
        pytest.param(lambda: number("0x1", 0, 10), None, id="a number as only Lua reads it"),
        pytest.param(lambda: number(True, 0, 10), None, id="true is no number"),
        pytest.param(lambda: whole("12", 100), 12, id="a count"),
        pytest.param(lambda: whole("-1000000", 100), 0, id="a negative count"),
        pytest.param(lambda: whole("1e400", 100), 0, id="a count with an exponent"),
        pytest.param(lambda: whole("٣", 100), 0, id="the digits of another script"),
        pytest.param(lambda: parse_moment("2027-01-15T08:00:00+00:00", NOW_S), NOW_S, id="a time"),
        pytest.param(lambda: parse_moment("2027-01-15T08:00:00", NOW_S), NOW_S, id="a time without offset is of UTC"),
        pytest.param(lambda: parse_moment(NOW_S - 1, NOW_S), NOW_S - 1, id="Unix seconds"),
        pytest.param(lambda: parse_moment(NOW_S * 1000, NOW_S), 0.0, id="milliseconds are far ahead"),
        pytest.param(lambda: parse_moment(NOW_S + 61, NOW_S), 0.0, id="a past that is yet to come"),
        pytest.param(lambda: parse_moment(NOW_S + 61, NOW_S, 90.0), NOW_S + 61, id="a future that may be so far"),
        pytest.param(lambda: parse_moment("9999-12-31T23:59:59-23:59", NOW_S), 0.0, id="a time beyond all calendars"),
        pytest.param(lambda: parse_moment("1999-12-31T23:59:59+00:00", NOW_S), 0.0, id="a time before 2000"),
        pytest.param(lambda: json_of('{"a": NaN}'), {"a": None}, id="JSON that is almost JSON"),
        pytest.param(
            lambda: json_of(r'{"a\ud83d": [{"b": "c\uDE00"}], "whole": "\ud83d\ude00"}'),
            {"a?": [{"b": "c?"}], "whole": "\U0001f600"},
            id="JSON with half a character",
        ),
        pytest.param(lambda: row_of(r"{'a\ud83d': ('b\udcff', 1)}"), {"a?": ["b?", 1]}, id="a row with half of one"),
        pytest.param(lambda: json_of("[" * 5000), None, id="JSON that is too deep"),
        pytest.param(lambda: json_of(json.dumps("[" * 5000)), "[" * 5000, id="brackets in a text are not deep"),
        pytest.param(lambda: row_of('{"a": 1}'), {"a": 1}, id="a row in JSON"),
        pytest.param(lambda: row_of("{'a': None, 'b': \"it's\"}"), {"a": None, "b": "it's"}, id="a row in Python"),
        pytest.param(lambda: row_of("{'a': exit()}"), {}, id="a row that would do something"),
        pytest.param(lambda: row_of("{'a': " + "[" * 5000 + "]" * 5000 + "}"), {}, id="a row that is too deep"),
        pytest.param(lambda: row_of("{'a': " + "-" * 15_000 + "1}"), {}, id="a row that is deep without brackets"),
        pytest.param(lambda: row_of("{'a': '" + "x" * 20_000 + "'}"), {}, id="a row that is too long"),
        pytest.param(lambda: row_of("{'a': 1}x"), {}, id="a row that was cut"),
        pytest.param(lambda: row_of("{[]: 1}"), {}, id="a row without a name"),
        pytest.param(lambda: json_of("[1]", most=2), None, id="JSON that is too long"),
        pytest.param(lambda: object_of("[1]"), {}, id="no object"),
    ],
)  # fmt: skip
def test_what_is_read(read: Callable[[], Any], expected: object) -> None:
    assert read() == expected


def test_infinite_numbers_in_json_are_left_to_who_reads_them() -> None:
    (found,) = json_of("[1e999]")
    assert math.isinf(found)
    assert number(found, 0, 1e308) is None
