"""The inspection of an answer, in whatever pieces its bytes arrive."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from openrouter_guard.rules.signals import Effect, ErrorType, Signal
from openrouter_guard.worker.classification.classify import classify_answer, classify_exception
from openrouter_guard.worker.classification.response_inspector import (
    KEPT_BYTES,
    SEARCHED_BYTES,
    ResponseInspector,
    of_told,
)

pytestmark = pytest.mark.slow

JSON = {"content-type": "application/json; charset=utf-8"}
STREAM = {"content-type": "text/event-stream"}
PAGE = {"content-type": "text/html"}
AUDIO = {"content-type": "audio/mpeg"}
GZIP = {"content-encoding": "gzip"}

GOOD = json.dumps({"choices": [{"message": {"content": 'the word "error"'}, "finish_reason": "stop"}]}).encode()
BAD = json.dumps({"error": {"code": 502, "message": "cut"}}).encode()
CHOICE = json.dumps(
    {"choices": [{"error": {"code": 502, "message": "cut"}, "finish_reason": "error", "message": {"content": ""}}]}
).encode()
LONG = {"error": {"code": 502, "message": "cut", "metadata": {"raw": "y" * 100_000, "provider_name": "Acme"}}}
TEXT = {"content-type": "text/plain"}
COMMENT = b': OPENROUTER PROCESSING {"error": 1}\n\n'
LINE = b'{"choices": [{"delta": {"content": "a"}, "finish_reason": null}]}\n'
LINE_DONE = b'{"choices": [{"delta": {}, "finish_reason": "stop"}]}\n'
CHUNK = b'data: {"choices": [{"delta": {"content": "\\"error\\""}, "finish_reason": null}]}\n\n'
DONE = b"data: [DONE]\n\n"


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def read(data: bytes, headers: dict[str, str], status_code: int = 200, *, size: int = 0) -> ResponseInspector:
    reading = ResponseInspector(status_code, headers)
    for start in range(0, len(data), size or len(data) or 1):
        reading.feed(data[start : start + (size or len(data))])
    return reading


def seen(signal: Signal) -> tuple[Effect, ErrorType | None]:
    return signal.effect, signal.error_type


SUCCESS = (Effect.SUCCESS, None)
NEUTRAL = (Effect.NEUTRAL, None)
UNAVAILABLE = (Effect.FAILURE, ErrorType.SERVICE_UNAVAILABLE)
UNKNOWN = (Effect.FAILURE, ErrorType.UNKNOWN_ERROR)
LIMITED = (Effect.FAILURE, ErrorType.RATE_LIMITED)

CASES = [
    pytest.param(GOOD, JSON, SUCCESS, id="an answer"),
    pytest.param(BAD, JSON, UNAVAILABLE, id="an error inside a 200"),
    pytest.param(b" \n" * KEPT_BYTES + BAD, JSON, UNAVAILABLE, id="an error behind much white space"),
    pytest.param(GOOD[:40], JSON, UNKNOWN, id="half an answer"),
    pytest.param(b"", JSON, UNKNOWN, id="no answer"),
    pytest.param(b"[" + b"1," * KEPT_BYTES + b"1]", JSON, SUCCESS, id="much"),
    pytest.param(b'{"error": null, "output": []}', JSON, SUCCESS, id="no error, said explicitly"),
    pytest.param(b"<html>Log in</html>", PAGE, UNKNOWN, id="a page"),
    pytest.param(b"ID3\x04" + bytes(range(256)) * 10, AUDIO, SUCCESS, id="a sound"),
    pytest.param(BAD, AUDIO, UNAVAILABLE, id="an error in place of a sound"),
    pytest.param(COMMENT + CHUNK + DONE, STREAM, SUCCESS, id="a stream"),
    pytest.param(CHUNK, STREAM, UNKNOWN, id="a stream that ends without a word"),
    pytest.param(CHUNK + event(error={"code": 502, "message": "cut"}) + DONE, STREAM, UNAVAILABLE, id="an error"),
    pytest.param(CHUNK + event(error={"code": 400, "message": "no"}), STREAM, NEUTRAL, id="the caller's own"),
    pytest.param(
        CHUNK + event(choices=[{"finish_reason": "error"}]), STREAM, UNAVAILABLE, id="an error as the reason to end"
    ),
    pytest.param(event(response={"error": {"message": "no"}}), STREAM, UNAVAILABLE, id="an error in a response"),
    pytest.param(
        event(type="error", code="server_error", message="cut"), STREAM, UNAVAILABLE, id="an error that is the event"
    ),
    pytest.param(event(type="error", code="invalid_prompt", message="no"), STREAM, NEUTRAL, id="of the request"),
    pytest.param(event(type="error", error={"type": "overloaded_error"}), STREAM, UNAVAILABLE, id="of a message"),
    pytest.param(
        event(error={"code": 502, "message": "cut"}).replace(b"\n", b"\r\n"), STREAM, UNAVAILABLE, id="CRLF"
    ),
    pytest.param(
        b'\xef\xbb\xbfdata: {"error":\rdata: {"code": 502}}\r\r', STREAM, UNAVAILABLE, id="an error over two lines"
    ),
    pytest.param(event(error={"code": 502}).strip(), STREAM, UNAVAILABLE, id="an error in a last line without end"),
    pytest.param(
        b"data: " + b"x" * 2 * KEPT_BYTES + b"\n\n" + event(error={"code": 502}),
        STREAM,
        UNAVAILABLE,
        id="an error behind an event that is too long to be looked at",
    ),
    pytest.param(
        b":" + b"x" * 2 * KEPT_BYTES + b"\n" + event(error={"code": 502}),
        STREAM,
        UNAVAILABLE,
        id="an error below a comment without end",
    ),
    pytest.param(b'data: {"error": {\n\n' + DONE, STREAM, SUCCESS, id="an event that is no JSON"),
    pytest.param(CHOICE, JSON, UNAVAILABLE, id="an error in a choice"),
    pytest.param(json.dumps(LONG).encode(), JSON, UNAVAILABLE, id="an error in a large body"),
    pytest.param(
        json.dumps({"id": "x" * 100_000} | LONG).encode(), JSON, UNAVAILABLE, id="an error behind much of a body"
    ),
    pytest.param(
        json.dumps({"padding": [[{"error": "x"}] * 9_000], **json.loads(CHOICE)}).encode(),
        JSON,
        UNAVAILABLE,
        id="an error in a choice of a large body",
    ),
    pytest.param(
        json.dumps(
            {"choices": [{"message": {"content": '{"error": {"code": 502}} ' * 9_000}}], "error": None}
        ).encode(),
        JSON,
        SUCCESS,
        id="a large answer about errors",
    ),
    pytest.param(b"[" + b"1," * KEPT_BYTES, JSON, UNKNOWN, id="half a large answer"),
    pytest.param(BAD, TEXT, UNAVAILABLE, id="an error as plain text"),
    pytest.param(BAD, {}, UNAVAILABLE, id="an error of no type"),
    pytest.param(b"\n " + CHOICE, {"content-type": "text/json"}, UNAVAILABLE, id="an error of another type"),
    pytest.param(b"words", TEXT, SUCCESS, id="a text"),
    pytest.param(b"<!DOCTYPE html><html>", TEXT, UNKNOWN, id="a page as plain text"),
    pytest.param(b"[" * 60_000, JSON, UNKNOWN, id="nested without end"),
    pytest.param(b'{"a":' * 60_000, JSON, UNKNOWN, id="nested without end, and large"),
    pytest.param(b"", STREAM, UNKNOWN, id="an empty stream"),
    pytest.param(COMMENT * 5, STREAM, UNKNOWN, id="a stream of comments only"),
    pytest.param(
        CHUNK + event(choices=[{"delta": {"content": "."}, "finish_reason": "stop"}]),
        STREAM,
        SUCCESS,
        id="a stream that says why it ends",
    ),
    pytest.param(
        CHUNK + event(choices=[{"error": {"code": 429, "message": "busy"}}]),
        STREAM,
        (Effect.FAILURE, ErrorType.RATE_LIMITED),
        id="an error in a choice of a stream",
    ),
    pytest.param(
        CHUNK + b"data: " + json.dumps(LONG).encode() + b"\n\n", STREAM, UNAVAILABLE, id="a large error in a stream"
    ),
    pytest.param(event(type="message_start", message={}), STREAM, UNKNOWN, id="half a message"),
    pytest.param(
        event(type="message_start", message={}) + event(type="message_stop"), STREAM, SUCCESS, id="a message"
    ),
    pytest.param(event(type="response.created"), STREAM, UNKNOWN, id="half a response"),
    pytest.param(event(type="response.created") + event(type="response.completed"), STREAM, SUCCESS, id="a response"),
    pytest.param(event(type="speech.audio.delta", audio="x"), STREAM, SUCCESS, id="a stream whose end is not known"),
    *(
        pytest.param(data, {"content-type": kind} if kind else {}, expected, id=f"{name}, labelled {kind}")
        for kind in ("", "text/plain", "application/json", "application/octet-stream", "text/html", "binary/x")
        for name, data, expected in (
            ("a stream", COMMENT + CHUNK + DONE, SUCCESS),
            ("a stream of a message", b"event: message_start\n" + event(type="message_stop"), SUCCESS),
            ("a stream with an error", COMMENT + event(error={"code": 502, "message": "cut"}) + DONE, UNAVAILABLE),
            ("a stream with the caller's own", event(error={"code": 400, "message": "no"}), NEUTRAL),
            ("half a stream", CHUNK, UNKNOWN),
            ("a stream of comments", COMMENT * 3, UNKNOWN),
            ("lines", LINE + LINE_DONE, SUCCESS),
            ("lines with an error", LINE + BAD + b"\n", UNAVAILABLE),
        )
    ),
    pytest.param(b'event: error\ndata: {"message": "cut"}\n\n', STREAM, UNAVAILABLE, id="an event called error"),
    pytest.param(b"event: error\ndata: overloaded\n\n", {}, UNAVAILABLE, id="an event called error, in words"),
    pytest.param(
        CHUNK + b'event: error\ndata: {"code": 400}\n\n', STREAM, NEUTRAL, id="an event called error, the caller's"
    ),
    pytest.param(b"data: upstream connect error\n\n", STREAM, UNKNOWN, id="a stream of words"),
    pytest.param(DONE, STREAM, UNKNOWN, id="an end before which nothing came"),
    pytest.param(LINE + LINE_DONE[:30], JSON, UNKNOWN, id="half of the last line"),
    pytest.param(LINE * 2_000 + LINE_DONE, JSON, SUCCESS, id="many lines"),
    pytest.param(LINE * 2_000 + BAD, JSON, UNAVAILABLE, id="an error behind many lines"),
    pytest.param(LINE * 2_000 + LINE_DONE[:30], JSON, UNKNOWN, id="many lines, and half of one"),
    pytest.param(LINE * 2_000 + LINE_DONE[:12], JSON, UNKNOWN, id="many lines, and the beginning of one"),
    pytest.param(GOOD, STREAM, SUCCESS, id="an answer labelled as a stream"),
    pytest.param(BAD, STREAM, UNAVAILABLE, id="an error labelled as a stream"),
    pytest.param(GOOD[:40], STREAM, UNKNOWN, id="half an answer labelled as a stream"),
    pytest.param(b"<html>Log in</html>", STREAM, UNKNOWN, id="a page labelled as a stream"),
    pytest.param(GOOD, PAGE, SUCCESS, id="an answer labelled as a page"),
    pytest.param(b"Log in", PAGE, UNKNOWN, id="words labelled as a page"),
    pytest.param(b"null", JSON, UNKNOWN, id="null"),
    pytest.param(b"[Music] {laughs}", TEXT, SUCCESS, id="a text in brackets"),
    pytest.param(b'<?xml version="1.0"?><Error/>', TEXT, UNKNOWN, id="an error of a gateway's storage"),
]

SHAPES = [
    pytest.param({"code": 502}, UNAVAILABLE, id="a code alone"),
    pytest.param({"code": 502, "message": "cut"}, UNAVAILABLE, id="a code and a message"),
    pytest.param({"code": "502", "message": "cut", "id": "gen-1"}, UNAVAILABLE, id="beside an id"),
    pytest.param({"code": 429, "message": "busy"}, LIMITED, id="a limit"),
    pytest.param({"code": 400, "message": "no"}, NEUTRAL, id="the caller's own"),
    pytest.param({"status": 503, "title": "Service Unavailable"}, UNAVAILABLE, id="a problem document"),
    pytest.param({"statusCode": 500, "message": "Internal server error"}, UNAVAILABLE, id="a gateway's"),
    pytest.param({"status": "error", "message": "down"}, UNAVAILABLE, id="a status of error"),
    pytest.param({"object": "error", "message": "down", "code": None}, UNAVAILABLE, id="an object that is an error"),
    pytest.param({"object": "error", "message": "no", "code": 400}, NEUTRAL, id="and the caller's own"),
    pytest.param({"type": "overloaded_error", "message": "x"}, UNAVAILABLE, id="a type"),
    pytest.param({"success": False, "errors": [{"code": 1000, "message": "x"}]}, UNAVAILABLE, id="a list of them"),
    pytest.param({"errors": ["overloaded"]}, UNAVAILABLE, id="a list of texts"),
    pytest.param({"object": "response", "status": "failed", "output": []}, UNAVAILABLE, id="a response that failed"),
    pytest.param(
        {"status": "failed", "error": {"code": "rate_limit_exceeded", "message": "x"}}, LIMITED, id="and says why"
    ),
    pytest.param({"status": "failed", "error": {"code": "invalid_prompt", "message": "x"}}, NEUTRAL, id="of its own"),
    pytest.param({"status": "incomplete", "incomplete_details": None}, UNAVAILABLE, id="half a response"),
    pytest.param(
        {"status": "incomplete", "output": [{}], "incomplete_details": {"reason": "max_output_tokens"}},
        NEUTRAL,
        id="as long as it may be",
    ),
    pytest.param(
        {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, NEUTRAL, id="filtered"
    ),
    pytest.param({"status": "cancelled", "output": []}, NEUTRAL, id="cancelled"),
    pytest.param(
        {"status": "completed", "output": [{"status": "failed", "error": "x"}]}, SUCCESS, id="a failed tool"
    ),
    pytest.param({"status": "queued", "id": "x"}, SUCCESS, id="one that waits for its turn"),
    pytest.param({"data": [{}], "code": 502}, SUCCESS, id="an answer with a code of another kind"),
    pytest.param({"choices": [{"finish_reason": "stop"}], "code": "x", "status": 500}, SUCCESS, id="and a status"),
    pytest.param({"text": "failed", "errors": []}, SUCCESS, id="what somebody said"),
]
"""What stands at the top of an answer, and what it is."""


@pytest.mark.parametrize(("body", "expected"), SHAPES)
def test_an_answer_that_is_an_error_needs_no_field_of_that_name(
    body: dict[str, Any], expected: tuple[Effect, ErrorType | None]
) -> None:
    text = json.dumps(body).encode()
    for headers in (JSON, TEXT, STREAM):
        assert seen(read(text, headers).signal()) == expected
    large = json.dumps({**body, "padding": "x" * 100_000}).encode()
    assert seen(read(large, JSON).signal()) == expected
    larger = json.dumps({"padding": ["x" * 100_000], **body}).encode()
    assert seen(read(larger, JSON, size=10_000).signal()) == expected
    assert seen(of_told(200, body=body)) == seen(of_told(200, body=text)) == expected


@pytest.mark.parametrize(("body", "expected"), [shape for shape in SHAPES if shape.values[1] != SUCCESS])
def test_so_it_is_in_a_stream(body: dict[str, Any], expected: tuple[Effect, ErrorType | None]) -> None:
    for kind in (STREAM, TEXT, {}):
        assert seen(read(CHUNK + event(**body) + DONE, kind).signal()) == expected


@pytest.mark.parametrize(
    ("kind", "response", "expected"),
    [
        ("response.failed", {"status": "failed", "error": None}, UNAVAILABLE),
        ("response.failed", {}, UNAVAILABLE),
        ("response.failed", {"error": {"code": "rate_limit_exceeded", "message": "x"}}, LIMITED),
        ("response.incomplete", {"status": "incomplete", "incomplete_details": None}, UNAVAILABLE),
        (
            "response.incomplete",
            {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
            NEUTRAL,
        ),
        ("response.completed", {"status": "completed", "error": None}, SUCCESS),
        ("response.completed", {"status": "completed", "output": ["x" * 100_000], "error": None}, SUCCESS),
        ("response.failed", {"output": ["x" * 100_000], "status": "failed"}, UNAVAILABLE),
    ],
)
def test_the_last_event_of_a_response(
    kind: str, response: dict[str, Any], expected: tuple[Effect, ErrorType | None]
) -> None:
    data = event(type="response.created") + event(type=kind, response=response)
    for headers in (STREAM, TEXT, {}):
        assert seen(read(data, headers).signal()) == expected


def test_one_of_several_models_that_fails_is_no_end() -> None:
    part = event(type="response.fusion_call.panel.failed", error="overloaded", model="x", status_code=503)
    whole = event(type="response.created") + part + event(type="response.completed")
    assert seen(read(whole, STREAM).signal()) == SUCCESS


@pytest.mark.parametrize(
    ("text", "expected"),
    [(b"no healthy upstream", UNKNOWN), (b"", UNKNOWN), (b'"ok"', UNKNOWN), (b" \n" * 50, UNKNOWN), (GOOD, SUCCESS)],
)
def test_where_json_is_due_nothing_else_is_an_answer(text: bytes, expected: tuple[Effect, ErrorType | None]) -> None:
    for kind in ({}, TEXT, AUDIO):
        reading = ResponseInspector(200, kind, is_json_due=True)
        reading.feed(text)
        assert seen(reading.signal()) == expected


@pytest.mark.parametrize("size", [0, 1, 7])
@pytest.mark.parametrize(("data", "headers", "expected"), CASES)
def test_of_a_200(data: bytes, headers: dict[str, str], expected: tuple[Effect, ErrorType | None], size: int) -> None:
    assert seen(read(data, headers, size=size).signal()) == expected


@pytest.mark.parametrize(("data", "headers", "expected"), CASES)
def test_of_a_200_that_is_compressed(
    data: bytes, headers: dict[str, str], expected: tuple[Effect, ErrorType | None]
) -> None:
    assert seen(read(gzip.compress(data), headers | GZIP, size=100).signal()) == expected


@pytest.mark.parametrize(
    ("status_code", "headers", "body", "expected"),
    [
        pytest.param(503, PAGE, b"<html>", UNAVAILABLE, id="a page that says no"),
        pytest.param(503, STREAM, BAD, UNAVAILABLE, id="a stream that never began"),
        pytest.param(402, JSON, BAD, (Effect.FAILURE, ErrorType.CREDITS_EXHAUSTED), id="an empty account"),
        pytest.param(
            402, JSON, b'{"error": {"metadata": {"reason": "weight_exceeds_budget"}}}', NEUTRAL, id="one request"
        ),
        pytest.param(429, JSON | {"Retry-After": "5"}, b"", (Effect.RATE_LIMIT, ErrorType.RATE_LIMITED), id="wait"),
        pytest.param(
            429,
            JSON,
            b'{"error": {"metadata": {"provider_name": "X"}}}',
            (Effect.NEUTRAL, ErrorType.RATE_LIMITED),
            id="one provider",
        ),
        pytest.param(307, JSON, b"", NEUTRAL, id="a redirect"),
        pytest.param(503, JSON, b"[" * 60_000, UNAVAILABLE, id="a body nested without end"),
        pytest.param(
            502, JSON, json.dumps(LONG).encode(), (Effect.FAILURE, ErrorType.SERVICE_UNAVAILABLE), id="a large body"
        ),
        pytest.param(
            402,
            JSON,
            json.dumps({"error": {"metadata": {"reason": "weight_exceeds_budget"}, "raw": "y" * 100_000}}).encode(),
            NEUTRAL,
            id="a large body that is cut",
        ),
    ],
)
def test_of_another_status(
    status_code: int, headers: dict[str, str], body: bytes, expected: tuple[Effect, ErrorType | None]
) -> None:
    assert seen(read(body, headers, status_code).signal()) == expected


@pytest.mark.parametrize("kind", [JSON, STREAM], ids=["JSON", "a stream"])
def test_what_is_not_compressed_as_it_says_is_no_answer_for_any_client(kind: dict[str, str]) -> None:
    reading = read(b"no gzip at all", kind | GZIP)
    assert reading.is_decided, "its client may close it at once"
    assert seen(reading.signal()) == UNKNOWN


@pytest.mark.parametrize("status_code", [204, 205])
def test_an_answer_that_has_no_body_lacks_none(status_code: int) -> None:
    assert seen(read(b"", JSON, status_code).signal()) == SUCCESS


def test_an_encoding_has_an_older_name() -> None:
    assert seen(read(gzip.compress(BAD), JSON | {"content-encoding": "x-gzip"}).signal()) == UNAVAILABLE


def test_what_an_sdk_keeps_of_an_answer_that_is_none() -> None:
    shapes: Any = [shape.values for shape in SHAPES]
    for body, expected in shapes:
        completion = ChatCompletion.construct(**body)
        assert seen(of_told(200, body=completion)) == expected, body


def test_an_encoding_that_it_cannot_read_leaves_the_status() -> None:
    assert seen(read(BAD, JSON | {"content-encoding": "br"}).signal()) == SUCCESS


@pytest.mark.parametrize(
    ("data", "headers", "status_code", "is_decided"),
    [
        pytest.param(CHUNK, STREAM, 200, False, id="a stream that goes on"),
        pytest.param(CHUNK + DONE, STREAM, 200, True, id="a stream that says it is done"),
        pytest.param(event(type="message_stop"), STREAM, 200, True, id="a message that says it is done"),
        pytest.param(event(choices=[{"finish_reason": "stop"}]), STREAM, 200, True, id="a stream that says why"),
        pytest.param(event(error={"code": 502}), STREAM, 200, True, id="a stream with an error"),
        pytest.param(GOOD, JSON, 200, False, id="a body of which more may come"),
        pytest.param(b"", JSON, 500, True, id="an error"),
    ],
)
def test_when_nothing_that_follows_matters(
    data: bytes, headers: dict[str, str], status_code: int, *, is_decided: bool
) -> None:
    assert read(data, headers, status_code).is_decided is is_decided


def test_little_is_kept_of_much() -> None:
    for headers in (JSON, STREAM):
        reading = read(b"x" * 50 * KEPT_BYTES, headers, size=KEPT_BYTES // 3)
        assert len(reading._kept) + reading._events.kept_bytes <= KEPT_BYTES


def test_a_small_body_that_unpacks_to_a_huge_one_is_not_unpacked_to_its_end() -> None:
    reading = read(gzip.compress(b"[" + b"1," * 1000 * KEPT_BYTES), JSON | GZIP)
    assert len(reading._kept) == KEPT_BYTES
    assert reading._searched <= SEARCHED_BYTES + KEPT_BYTES


TYPES = st.sampled_from(["application/json", "text/event-stream", "text/plain", "text/html", "audio/mpeg", "", "x/é"])
MARKS = [b"data: ", b"\n\n", b": x\n", b'{"error":', b'{"choices":[{"error":', b"}", b"]", b'"', b"\\", b"[" * 2_000]
ANSWERS = [GOOD, BAD, CHOICE, CHUNK, DONE, b"\xff\xfe", b"y" * 70_000, gzip.compress(BAD), b"5e999", b"null"]
PIECES = st.sampled_from([*MARKS, *ANSWERS])
HEADERS = st.dictionaries(
    st.sampled_from(["content-encoding", "retry-after", "x-ratelimit-reset", "date"]),
    st.one_of(st.sampled_from(["gzip", "br", "1e400", "-1"]), st.text(max_size=20)),
)


@given(st.integers(200, 599), TYPES, HEADERS, st.lists(st.one_of(PIECES, st.binary(max_size=50)), max_size=12))
def test_nothing_that_anybody_answers_makes_it_raise(
    status_code: int, kind: str, headers: dict[str, str], pieces: list[bytes]
) -> None:
    reading = ResponseInspector(status_code, {"content-type": kind, **headers})
    for piece in pieces:
        reading.feed(piece)
    signal = reading.signal(1.8e9)
    assert signal.wait_s is None or 0 < signal.wait_s <= 25 * 3600
    assert signal.effect is not Effect.SUCCESS or status_code < 300


JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["error", "choices", "code", "message", "metadata", "provider_name", "headers", "type"]),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=15,
)


@given(st.integers(-1, 700), st.one_of(JSON_VALUES, st.binary(), st.text()), st.one_of(JSON_VALUES, HEADERS))
def test_nor_does_anything_that_a_worker_says_of_it(status_code: int, body: object, headers: Any) -> None:
    classify_answer(status_code, body=body, headers=headers, now=1.8e9).message.encode()


@given(JSON_VALUES, JSON_VALUES, JSON_VALUES, st.sampled_from([None, 402, "503", 1e9, True]))
def test_nor_does_any_exception(body: object, headers: object, said: object, status_code: object) -> None:
    error = ValueError(said)
    for name, value in {"body": body, "headers": headers, "response": said, "status_code": status_code}.items():
        setattr(error, name, value)
    classify_exception(error, now=1.8e9).message.encode()
