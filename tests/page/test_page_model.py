"""The model of the status page, tested without a browser."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openrouter_guard.api.page.view_model import (
    PageModel,
    Tone,
    days_of,
    duration,
    headline,
    segments_of,
    series_of,
    utc,
)
from openrouter_guard.api.schemas.status import STATUS_EXAMPLES, StatusAnswer
from openrouter_guard.rules.breaker import BreakerState

TODAY = "2026-03-01"
NOW_S = 1_772_366_400.0  # 2026-03-01T12:00:00Z


def answer(**changes: Any) -> StatusAnswer:
    return StatusAnswer(**(STATUS_EXAMPLES[0] | changes))


def breaker(state: str | None, **changes: Any) -> dict[str, Any]:
    own: dict[str, Any] = STATUS_EXAMPLES[0]["circuit_breaker"] | {"state": state}
    return own | changes


def override(kind: str) -> dict[str, Any]:
    said = {"kind": kind, "who": "ada", "why": "a release", "until": "2026-03-01T13:00:00+00:00"}
    return breaker("open", override=said)


@pytest.mark.parametrize(
    ("changes", "tone", "words"),
    [
        ({}, Tone.GOOD, "Calls go through"),
        (
            {"circuit_breaker": breaker("open"), "status": "service_unavailable"},
            Tone.BAD,
            "Calls are paused: OpenRouter is not available",
        ),
        (
            {"circuit_breaker": breaker("open"), "status": "credits_exhausted"},
            Tone.BAD,
            "Calls are paused: the account is out of credit",
        ),
        (
            {"circuit_breaker": breaker("open"), "status": "api_key_invalid"},
            Tone.BAD,
            "Calls are paused: the API key is refused",
        ),
        ({"circuit_breaker": breaker("half_open")}, Tone.WARN, "Trial calls decide whether OpenRouter is back"),
        (
            {"rate_limit_reset": "2026-03-01T12:05:00+00:00", "status": "rate_limited"},
            Tone.WARN,
            "Calls wait: OpenRouter limits the rate",
        ),
        ({"status": "api_key_missing", "last_check": None}, Tone.WARN, "Calls go, but there is no API key"),
        ({"circuit_breaker": breaker(None), "status": "error"}, Tone.UNKNOWN, "Nothing is known yet"),
        ({"status": "error", "last_check": None}, Tone.UNKNOWN, "Nothing is known yet"),
        ({"status": "error", "consecutive_failures": 2}, Tone.WARN, "Calls go, but calls to OpenRouter fail"),
        ({"circuit_breaker": override("forced_open")}, Tone.BAD, "Calls are stopped by a person"),
        ({"circuit_breaker": override("forced_closed")}, Tone.WARN, "Calls go, because a person says so"),
        ({"circuit_breaker": override("disabled")}, Tone.WARN, "The breaker is switched off by a person"),
    ],
)
def test_each_state_is_said_in_words(changes: dict[str, Any], tone: Tone, words: str) -> None:
    found = headline(answer(**changes))

    assert (found.tone, found.words) == (tone, words)


def test_an_override_says_who_and_why() -> None:
    assert headline(answer(circuit_breaker=override("forced_open"))).detail == "ada: a release"


def change(before: str, after: str, ago_s: float) -> dict[str, str]:
    return {"at": utc(NOW_S - ago_s), "from": before, "to": after}


def shown(history: list[dict[str, str]], state: str | None) -> list[tuple[str, float, float]]:
    return [(part.state, part.start, part.width) for part in segments_of(history, state, NOW_S, span_s=100)]


def test_without_a_transition_the_whole_timeline_is_as_it_is_now() -> None:
    assert shown([], "closed") == [("closed", 0, 100)]


def test_the_timeline_is_cut_where_the_breaker_changed() -> None:
    history = [change("half_open", "closed", 20), change("open", "half_open", 30), change("closed", "open", 70)]

    assert shown(history, "closed") == [
        ("closed", 0, 30),
        ("open", 30, 40),
        ("half_open", 70, 10),
        ("closed", 80, 20),
    ]


def test_what_began_before_the_timeline_reaches_to_its_beginning() -> None:
    assert shown([change("closed", "open", 500)], "open") == [("open", 0, 100)]


def test_an_outage_of_a_minute_can_be_seen_on_the_timeline_of_a_day() -> None:
    history = [{"at": utc(NOW_S - 10), "from": "closed", "to": "open"}]

    last = segments_of(history, "open", NOW_S)[-1]

    assert (last.state, last.width) == ("open", 0.012)
    assert (last.drawn_start, last.drawn_width) == (99.6, 0.4)


def test_a_state_that_is_not_known_is_not_painted_as_a_good_one() -> None:
    [part] = segments_of([], None, NOW_S)

    assert (part.state, part.tone) == ("unknown", Tone.UNKNOWN)


def test_there_is_a_bar_for_each_of_thirty_days_the_last_one_today() -> None:
    days = days_of({}, {}, NOW_S)

    assert [days[0].date, days[-1].date, len(days)] == ["2026-01-31", "2026-03-01", 30]
    assert {day.tone for day in days} == {Tone.UNKNOWN}


@pytest.mark.parametrize(
    ("failed", "open_s", "tone", "words"),
    [
        (10, 0.0, Tone.GOOD, "1,000 calls, 10 failed"),
        (60, 0.0, Tone.WARN, "1,000 calls, 60 failed"),
        (10, 120.0, Tone.BAD, "1,000 calls, 10 failed, calls paused for 2 min"),
    ],
)
def test_a_day_is_as_good_as_its_calls(failed: int, open_s: float, tone: Tone, words: str) -> None:
    metrics = {TODAY: {"total_calls": 1000, "failed_calls": failed}}

    day = days_of(metrics, {TODAY: {BreakerState.CLOSED: 3600.0, BreakerState.OPEN: open_s}}, NOW_S)[-1]

    assert (day.tone, day.words) == (tone, words)


def test_a_day_on_which_nobody_called_is_a_good_one_if_somebody_was_there() -> None:
    assert days_of({}, {TODAY: {BreakerState.CLOSED: 3600.0}}, NOW_S)[-1].tone is Tone.GOOD


def test_availability_is_the_share_of_the_known_time_without_a_pause() -> None:
    days = days_of({}, {TODAY: {BreakerState.CLOSED: 900.0, BreakerState.OPEN: 100.0}}, NOW_S)
    view = PageModel(answer(), NOW_S, headline(answer()), [], days, None, None, None)

    assert [(each.days, each.percent) for each in view.availability] == [(1, 90), (7, 90), (30, 90)]
    assert replace(view, days=days_of({}, {}, NOW_S)).availability[0].percent is None


def test_a_day_without_calls_leaves_a_gap_in_the_plots() -> None:
    counters = {"total_calls": 8, "failed_calls": 2, "latency_ms_le_1000": 8}

    days = days_of({TODAY: counters}, {}, NOW_S, days=2)

    series = series_of(days)

    assert series["errors"]["values"] == [[None, 25.0]]
    assert series["latency"]["values"] == [[None, 837], [None, 982], [None, 996]]
    assert series["errors"]["at"] == [1_772_236_800, 1_772_323_200]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3600, "1 h"), (12_000, "3 h 20 min")]
)
def test_durations_are_said_in_two_numbers_at_most(seconds: float, words: str) -> None:
    assert duration(seconds) == words
