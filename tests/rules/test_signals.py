"""The signals of the upstream's answers."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openrouter_guard.rules.signals import (
    Effect,
    ErrorType,
    OpenRouterState,
    SignalScope,
    classify_error_type,
    classify_status,
)

NOW_S = 1_800_000_000.0
"""15 January 2027, 08:00:00 UTC."""
UNTIL_MIDNIGHT_S = 16 * 3600.0
MINUTE_AHEAD = {"x-ratelimit-reset": "1800000060000"}


@pytest.mark.parametrize(
    ("status_code", "error_type"),
    [
        (401, ErrorType.API_KEY_INVALID),
        (402, ErrorType.CREDITS_EXHAUSTED),
        (408, ErrorType.TIMEOUT),
        (500, ErrorType.SERVICE_UNAVAILABLE),
        (502, ErrorType.SERVICE_UNAVAILABLE),
        (503, ErrorType.SERVICE_UNAVAILABLE),
        (504, ErrorType.TIMEOUT),
        (524, ErrorType.TIMEOUT),
        (529, ErrorType.SERVICE_UNAVAILABLE),
        (599, ErrorType.SERVICE_UNAVAILABLE),
    ],
)
def test_an_outage_or_an_account_problem_is_a_failure(status_code: int, error_type: ErrorType) -> None:
    signal = classify_status(status_code, now=NOW_S)
    assert (signal.effect, signal.error_type) == (Effect.FAILURE, error_type)


@pytest.mark.parametrize("status_code", [400, 403, 404, 413, 422])
def test_a_request_that_was_wrong_says_nothing_about_the_upstream(status_code: int) -> None:
    assert classify_status(status_code, now=NOW_S).effect is Effect.NEUTRAL


def test_a_key_over_its_limit_is_out_of_credit_and_not_a_bad_key() -> None:
    error = {"code": 403, "message": "Key limit exceeded (total limit)"}
    assert classify_status(403, error=error, now=NOW_S).error_type is ErrorType.CREDITS_EXHAUSTED


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param({"reason": "weight_exceeds_budget"}, id="one oversized request"),
        pytest.param({"limit_source": "openrouter_in_flight_budget"}, id="requests in flight"),
    ],
)
def test_a_402_about_a_request_is_no_empty_account(metadata: dict[str, str]) -> None:
    error = {"code": 402, "message": "no", "metadata": metadata}
    assert classify_status(402, error=error, now=NOW_S).effect is Effect.NEUTRAL


@pytest.mark.parametrize(
    ("message", "effect"),
    [
        ("You requested up to 65536 tokens, but can only afford 30104. To increase, visit …", Effect.NEUTRAL),
        ("You requested up to 65,536 tokens, but can only afford 1,024.", Effect.NEUTRAL),
        ("Prompt tokens limit exceeded: 23517 > 1204.", Effect.NEUTRAL),
        ("You requested up to 64 tokens, but can only afford 0.", Effect.FAILURE),
        ("Prompt tokens limit exceeded: 64 > 0", Effect.FAILURE),
        ("You can only afford -5", Effect.FAILURE),
        ("Insufficient credits", Effect.FAILURE),
    ],
)
def test_what_is_left_may_pay_for_a_smaller_request(message: str, effect: Effect) -> None:
    signal = classify_status(
        402, error={"code": 402, "message": message, "metadata": {"provider_name": None}}, now=NOW_S
    )
    assert signal.effect is effect
    assert signal.refuses_credit is (effect is Effect.FAILURE)


@pytest.mark.parametrize(
    ("status_code", "message"), [(401, "Incorrect key"), (402, "Insufficient Balance"), (403, "Key limit exceeded")]
)
def test_a_refusal_of_a_named_provider_is_about_its_model(status_code: int, message: str) -> None:
    error = {"code": status_code, "message": message, "metadata": {"provider_name": "Acme", "is_byok": True}}
    signal = classify_status(status_code, error=error, now=NOW_S)
    assert (signal.effect, signal.about, signal.doubts_account) == (Effect.MODEL, SignalScope.MODEL, False)


@pytest.mark.parametrize("error", [None, {}, {"message": "", "metadata": {}}])
def test_a_402_of_which_no_more_is_known_asks_for_a_check_and_is_one_failure(error: dict[str, Any] | None) -> None:
    signal = classify_status(402, error=error, now=NOW_S)
    assert (signal.effect, signal.doubts_account, signal.refuses_credit) == (Effect.FAILURE, True, False)
    assert signal.reported is ErrorType.UNKNOWN_ERROR


@pytest.mark.parametrize("message", [None, 5, ["x"], {"a": 1}, "\ud800", pytest.param(10**5000, id="long")])
def test_a_message_may_be_anything(message: Any) -> None:
    classify_status(500, error={"message": message}, now=NOW_S).message.encode()


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        pytest.param({"retry-after": "30"}, 30.0, id="seconds"),
        pytest.param({"retry-after-ms": "1500"}, 1.5, id="milliseconds"),
        pytest.param({"retry-after": "Fri, 15 Jan 2027 08:00:20 GMT"}, 20.0, id="an HTTP date"),
        pytest.param(MINUTE_AHEAD, 60.0, id="a reset time in epoch milliseconds"),
        pytest.param({"retry-after": "999999"}, 25 * 3600.0, id="longer than any limit lasts"),
        pytest.param({"retry-after": "1", **MINUTE_AHEAD}, 60.0, id="the longer of two"),
        pytest.param({"retry-after": "90", **MINUTE_AHEAD}, 90.0, id="whichever that is"),
        pytest.param({"retry-after": "5, 60"}, 60.0, id="the longer of two that a proxy has merged"),
        pytest.param({"retry-after": "60,5"}, 60.0, id="in any order"),
        pytest.param({"retry-after": "0, 5"}, 5.0, id="but for one of nothing"),
        pytest.param({"retry-after": "5, Fri, 15 Jan 2027 08:00:20 GMT"}, 20.0, id="a number and a date"),
        pytest.param(
            {"retry-after": "Fri, 15 Jan 2027 08:00:50 GMT, Fri, 15 Jan 2027 08:00:20 GMT"}, 50.0, id="two dates"
        ),
        pytest.param({"retry-after": ["5", "60"]}, 60.0, id="two in a list"),
        pytest.param({"retry-after-ms": "500, 1500"}, 1.5, id="two in milliseconds"),
        pytest.param({"x-ratelimit-reset": "1800000005000, 1800000060000"}, 60.0, id="two resets"),
    ],
)
def test_a_rate_limit_is_waited_for(headers: dict[str, str], wait_s: float) -> None:
    signal = classify_status(429, headers=headers, now=NOW_S)
    assert (signal.effect, signal.wait_s) == (Effect.RATE_LIMIT, wait_s)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        pytest.param({"x-ratelimit-reset": "1800000060"}, 60.0, id="epoch seconds"),
        pytest.param({"x-ratelimit-reset": "1800000060000000"}, 60.0, id="epoch microseconds"),
        pytest.param({"x-ratelimit-reset": "2027-01-15T08:01:00Z"}, 60.0, id="ISO 8601"),
        pytest.param({"retry-after": "1800000060"}, 60.0, id="a time where a duration is due"),
        pytest.param({"retry-after": "0", **MINUTE_AHEAD}, 60.0, id="one of two that is over"),
        pytest.param({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, 25 * 3600.0, id="a date far away"),
        pytest.param({"x-ratelimit-reset": "9999999999999"}, 25 * 3600.0, id="a time far away"),
        pytest.param({**MINUTE_AHEAD, "date": "Fri, 15 Jan 2027 10:00:30 GMT"}, None, id="over by its own clock"),
        pytest.param({**MINUTE_AHEAD, "date": "Fri, 15 Jan 2027 06:00:30 GMT"}, 7230.0, id="by its own clock"),
        pytest.param({**MINUTE_AHEAD, "date": "Thu, 01 Jan 1970 00:00:00 GMT"}, 60.0, id="a clock that stands"),
        pytest.param({**MINUTE_AHEAD, "date": "noon"}, 60.0, id="a date that is none"),
    ],
)
def test_a_time_is_understood_in_each_form(headers: dict[str, str], wait_s: float | None) -> None:
    assert classify_status(429, headers=headers, now=NOW_S).wait_s == wait_s


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        ("30.5", 30.5),
        ("30s", 30.0),
        ("30 s", 30.0),
        ("1m30s", 90.0),
        ("1 minute, 30 seconds", 60.0),
        ("250ms", 0.25),
        ("500 milliseconds", 0.5),
        ("PT1M30S", 90.0),
        ("1.5h", 5400.0),
        ("2 mins", 120.0),
        ("1 day", 86_400.0),
        (' "30" ', 30.0),
        ("+30", 30.0),
        ("30;w=1", 30.0),
        (30, 30.0),
        ("Friday, 15-Jan-27 08:00:20 GMT", 20.0),
        ("Fri Jan 15 08:00:20 2027", 20.0),
        ("15 Jan 2027 08:00:20 GMT", 20.0),
        ("fri, 15 jan 2027 08:00:20 gmt", 20.0),
        ("Fri, 15 Jan 2027 09:00:20 +0100", 20.0),
        ("Fri, 15 Jan 2027 08:00:20", 20.0),
        ("2027-01-15T08:00:20Z", 20.0),
        ("2027-01-15 08:00:20", 20.0),
        ("30 sheep", None),
        ("30x", None),
        ("-5", None),
        ("soon", None),
        (",", None),
    ],
)
def test_a_wait_is_understood_as_lenient_clients_do(value: object, wait_s: float | None) -> None:
    assert classify_status(429, headers={"retry-after": value}, now=NOW_S).wait_s == wait_s
    for metadata in ({"retry_after_seconds": value}, {"headers": {"Retry-After": value}}):
        assert classify_status(429, error={"metadata": metadata}, now=NOW_S).wait_s == wait_s


@pytest.mark.parametrize("where", ["x-ratelimit-reset", "X-RateLimit-Reset", "X-RATELIMIT-RESET"])
def test_a_reset_may_stand_in_the_body(where: str) -> None:
    error = {
        "message": "Rate limit exceeded",
        "metadata": {"headers": {where: "1800000060000", "Date": "no", "n": None}},
    }
    signal = classify_status(429, error=error, now=NOW_S)
    assert (signal.effect, signal.wait_s) == (Effect.RATE_LIMIT, 60.0)
    assert classify_status(429, error=error, headers={"retry-after": "90"}, now=NOW_S).wait_s == 90.0


@given(
    name=st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset"]),
    value=st.one_of(st.text(), st.floats().map(str), st.integers().map(str), st.datetimes().map(str)),
    date=st.text(),
)
@example("retry-after", "1e400", "")
@example("x-ratelimit-reset", "٣٠", "")
@example("retry-after", "Mon, 99 Jan 99999 99:99:99 GMT", "Mon, 99 Jan 99999 99:99:99 GMT")
def test_a_wait_is_within_bounds_or_none_whatever_is_said(name: str, value: str, date: str) -> None:
    for headers, metadata in (({name: value, "date": date}, {}), ({}, {"headers": {name: value}})):
        wait_s = classify_status(429, headers=headers, error={"metadata": metadata}, now=NOW_S).wait_s
        assert wait_s is None or 0 < wait_s <= 25 * 3600.0


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"retry-after": "soon"},
        {"retry-after": "nan"},
        {"retry-after": "inf"},
        {"retry-after": "1e400"},
        {"retry-after": "-5"},
        {"retry-after": "0"},
        {"retry-after": "0.0"},
        {"retry-after-ms": "0"},
        {"retry-after": "٣٠"},
        {"x-ratelimit-reset": "1799999999000"},
        {"x-ratelimit-reset": "1799999999"},
        {"x-ratelimit-reset": "0"},
        {"x-ratelimit-reset": "1000"},
        {"retry-after": "Fri, 15 Jan 2027 07:59:59 GMT"},
    ],
)
def test_a_rate_limit_without_a_time_is_one_failure(headers: dict[str, str]) -> None:
    assert classify_status(429, headers=headers, now=NOW_S).effect is Effect.FAILURE


def test_one_providers_full_pool_stops_nobody_else() -> None:
    error = {"message": "busy", "metadata": {"provider_name": "Acme", "retry_after_seconds": 9}}
    signal = classify_status(429, error=error, now=NOW_S)
    assert (signal.effect, signal.wait_s, signal.about) == (Effect.NEUTRAL, 9.0, SignalScope.MODEL)


@pytest.mark.parametrize("status_code", [500, 502, 503, 529])
def test_a_provider_that_is_named_fails_for_its_model(status_code: int) -> None:
    error = {"message": "down", "metadata": {"provider_name": "Acme"}}
    signal = classify_status(status_code, error=error, headers={"retry-after": "9"}, now=NOW_S)
    assert (signal.effect, signal.wait_s, signal.about) == (Effect.FAILURE, 9.0, SignalScope.MODEL)
    assert classify_status(status_code, now=NOW_S).about is SignalScope.ACCOUNT


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        pytest.param(MINUTE_AHEAD, 60.0, id="until the reset"),
        pytest.param({"x-ratelimit-reset": "9999999999999"}, 25 * 3600.0, id="no cap lasts longer than a day"),
        pytest.param({}, UNTIL_MIDNIGHT_S, id="else until midnight UTC"),
        pytest.param({"retry-after": "5"}, UNTIL_MIDNIGHT_S, id="not only for as long as a retry would take"),
        pytest.param(
            {"retry-after": "5", "x-ratelimit-reset": "1800057600000"}, UNTIL_MIDNIGHT_S, id="if both are said"
        ),
        pytest.param({"x-ratelimit-reset": "soon"}, UNTIL_MIDNIGHT_S, id="nor for no time, if it cannot be read"),
    ],
)
def test_the_cap_of_the_free_models_stops_only_them(headers: dict[str, str], wait_s: float) -> None:
    error = {"message": "Rate limit exceeded: free-models-per-day", "metadata": {"provider_name": "Acme"}}
    signal = classify_status(429, error=error, headers=headers, now=NOW_S)
    assert (signal.effect, signal.wait_s, signal.about) == (Effect.NEUTRAL, wait_s, SignalScope.FREE_MODELS)


@pytest.mark.parametrize(("headers", "wait_s"), [({}, 60.0), ({"retry-after": "7"}, 7.0)])
def test_their_cap_of_a_minute_lasts_no_longer(headers: dict[str, str], wait_s: float) -> None:
    signal = classify_status(
        429, error={"message": "Rate limit exceeded: free-models-per-min. "}, headers=headers, now=NOW_S
    )
    assert (signal.wait_s, signal.about) == (wait_s, SignalScope.FREE_MODELS)


@pytest.mark.parametrize("before", [0, 190], ids=["whole", "across the end of the message"])
def test_a_key_that_the_upstream_repeats_is_hidden(before: int) -> None:
    message = "x" * before + " sk-or-v1-0123456789abcdef is not known"
    signals = (
        classify_status(401, error={"message": message}, now=NOW_S),
        classify_error_type("api_key_invalid", message),
    )
    assert all("sk-or" not in signal.message and "[key]" in signal.message for signal in signals)


def test_a_long_message_is_shortened() -> None:
    assert len(classify_status(500, error={"message": "x" * 10_000}, now=NOW_S).message) == 200


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("timeout", OpenRouterState.ERROR),
        ("network_error", OpenRouterState.ERROR),
        ("credits_exhausted", OpenRouterState.CREDITS_EXHAUSTED),
        ("something new", OpenRouterState.ERROR),
    ],
)
def test_a_named_error_has_a_state(name: str, state: OpenRouterState) -> None:
    error_type = classify_error_type(name).error_type
    assert error_type is not None
    assert error_type.state is state
