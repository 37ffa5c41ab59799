"""Server-sent events: the same ones, wherever the network splits the bytes."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openrouter_guard.worker.classification.sse import SSEDecoder

LIMIT_BYTES = 64
BOM = b"\xef\xbb\xbf"


def found(*pieces: bytes) -> list[bytes]:
    events = SSEDecoder(LIMIT_BYTES)
    return [data for piece in pieces for data in events.feed(piece)] + list(events.end())


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        pytest.param(b"data: a\n\ndata: b\n\n", [b"a", b"b"], id="LF"),
        pytest.param(b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"], id="CRLF"),
        pytest.param(b"data: a\r\rdata: b\r\r", [b"a", b"b"], id="CR alone"),
        pytest.param(b"data: a\rdata: b\r\n\n", [b"a\nb"], id="all three"),
        pytest.param(b"data: {\ndata: }\n\n", [b"{\n}"], id="data over several lines"),
        pytest.param(b"data:a\n\ndata:  b\n\n", [b"a", b" b"], id="one space belongs to the field"),
        pytest.param(b"data\n\ndata:\n\n", [b"", b""], id="data without a value"),
        pytest.param(BOM + b"data: a\n\n", [b"a"], id="a byte order mark"),
        pytest.param(b"data: a\n\n" + BOM + b"data: b\n\n", [b"a"], id="only at the beginning"),
        pytest.param(b": OPENROUTER PROCESSING\n\ndata: a\n: b\n\n", [b"a"], id="comments"),
        pytest.param(b"event: x\nid: 1\nretry: 5\ndata: a\ndatas: b\n\n", [b"a"], id="other fields"),
        pytest.param(b"\n\n\ndata: a\n\n\n\n", [b"a"], id="empty lines"),
        pytest.param(b"event: error\ndata: a\n\ndata: b\n\n", [b'{"error":"a"}', b"b"], id="an error in words"),
        pytest.param(b'data: {"a":1}\nevent:error\n\n', [b'{"error":{"a":1}}'], id="an error in JSON"),
        pytest.param(b'event: error\ndata: {"error":1}\n\n', [b'{"error":1}'], id="an error that says so"),
        pytest.param(b"event: errors\ndata: a\n\n", [b"a"], id="an event of a similar name"),
        pytest.param(b"data: a", [b"a"], id="cut short by the end"),
        pytest.param("data: ü\n\n".encode(), ["ü".encode()], id="UTF-8"),
        pytest.param(
            b"data: " + b"x" * LIMIT_BYTES + b"\n\ndata: a\n\n",
            [b"x" * (LIMIT_BYTES - 6), b"a"],
            id="a line that is cut",
        ),
        pytest.param(
            b"data: xxxxxxxxxxx\n" * 6 + b"\ndata: a\n\n",
            [b"\n".join([b"x" * 11] * 6)[:LIMIT_BYTES], b"a"],
            id="too many lines",
        ),
        pytest.param(b":" + b"x" * LIMIT_BYTES + b"\ndata: a\n\n", [b"a"], id="a comment that is too long"),
        pytest.param(b"", [], id="nothing"),
    ],
)
def test_the_data_of_each_event(stream: bytes, expected: list[bytes]) -> None:
    assert found(stream) == expected
    assert found(*(bytes([byte]) for byte in stream)) == expected


LINES = st.one_of(
    st.just(""),
    st.text(max_size=8).map(lambda text: f"data: {text}"),
    st.text(max_size=8).map(lambda text: f": {text}"),
    st.text(max_size=8),
    st.sampled_from(
        [LIMIT_BYTES // 2 - 3, LIMIT_BYTES // 2 - 1, LIMIT_BYTES - 7, LIMIT_BYTES - 6, LIMIT_BYTES - 5]
    ).map(lambda size: "data: " + "x" * size),
)
ENDS = st.sampled_from(["\n", "\r", "\r\n"])
STREAMS = st.lists(st.tuples(LINES, ENDS)).map(lambda lines: "".join(line + end for line, end in lines).encode())


@given(st.data(), STREAMS)
def test_cuts_change_nothing(data: st.DataObject, stream: bytes) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(stream))).map(sorted))
    pieces = [stream[begin:end] for begin, end in pairwise([0, *cuts, len(stream)])]
    assert found(*pieces) == found(stream) == as_one_text(stream)


def as_one_text(stream: bytes) -> list[bytes]:
    """What the standard says of a whole stream, with a look at the limit last."""
    events, lines = [], []
    for line in [*re.split(b"\r\n|\r|\n", stream.removeprefix(BOM)), b""]:
        if line.partition(b":")[0] == b"data":
            lines.append(line)
        elif not line and lines:
            events.append(lines)
            lines = []
    values = [[line[:LIMIT_BYTES].partition(b":")[2].removeprefix(b" ") for line in event] for event in events]
    return [b"\n".join(data)[:LIMIT_BYTES] for data in values]


@given(st.lists(st.binary(max_size=200)))
@example([b"data: " + b"x" * LIMIT_BYTES] * 100)
@example([b"data: x\n"] * 100)
def test_little_is_kept_whatever_comes(pieces: list[bytes]) -> None:
    events = SSEDecoder(LIMIT_BYTES)
    for piece in pieces:
        list(events.feed(piece))
        assert events.kept_bytes <= 2 * LIMIT_BYTES
