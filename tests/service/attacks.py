"""Attacks of one client without a token on the health service, on plain sockets.

Each function is one client's part on one connection; :data:`ATTACKS` says how many of them there are at once.
"""

from __future__ import annotations

import socket
from contextlib import suppress

__all__ = ["ATTACKS", "CLIENTS", "STATUS", "a_large_file_that_nobody_reads", "a_page", "half_a_head"]

MIB = 1024 * 1024
CLIENTS = 1100
"""More than are let in."""
STATUS = b"/api/v1/openrouter/status"


def sent(client: socket.socket, data: bytes) -> bool:
    """Whether the service took it; it may well have hung up."""
    with suppress(OSError):
        client.sendall(data)
        return True
    return False


def half_a_head(client: socket.socket) -> None:
    sent(client, b"GET /livez HTTP/1.1\r\nHost: x\r\nX-half: ")


def nothing(_client: socket.socket) -> None:
    pass


def almost_too_large_a_head(client: socket.socket) -> None:
    sent(client, b"GET /livez HTTP/1.1\r\nHost: x\r\nX-a: " + b"a" * 60_000)


def many_small_headers(client: socket.socket) -> None:
    sent(client, b"GET /livez HTTP/1.1\r\nHost: x\r\n")
    headers = b"".join(b"H%d: b\r\n" % number for number in range(100_000))
    for _ in range(16 * MIB // len(headers)):
        sent(client, headers)


def one_endless_header(client: socket.socket) -> None:
    sent(client, b"GET /livez HTTP/1.1\r\nHost: x\r\nX-a: ")
    for _ in range(64):
        sent(client, b"a" * MIB)


def one_endless_path(client: socket.socket) -> None:
    sent(client, b"GET /")
    for _ in range(64):
        sent(client, b"a" * MIB)


def a_body_that_nobody_asked_for(client: socket.socket) -> None:
    sent(client, b"GET %s HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n" % STATUS + b"a" * 300_000)


def a_slow_body(client: socket.socket) -> None:
    sent(client, b"POST /api/v1/openrouter/reports HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{")


def a_trickle_of_chunks(client: socket.socket) -> None:
    sent(client, b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % STATUS)
    for _ in range(200):
        sent(client, b"1;" + b"x" * 1000 + b"\r\na\r\n")


def an_endless_trailer(client: socket.socket) -> None:
    sent(client, b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-a: " % STATUS)
    for _ in range(16):
        sent(client, b"a" * MIB)


def many_trailers(client: socket.socket) -> None:
    sent(client, b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" % STATUS)
    for _ in range(16):
        sent(client, b"T: a\r\n" * 200_000)


def a_pipeline_that_nobody_reads(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sent(client, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 20_000)


def a_pipeline_behind_a_body(client: socket.socket) -> None:
    body = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na"
    sent(client, body + b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 5_000)


def empty_lines(client: socket.socket) -> None:
    sent(client, b"\r\n" * 500_000)


def a_large_body_without_a_token(client: socket.socket) -> None:
    head = b"POST /api/v1/openrouter/reports HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    sent(client, head + b"Content-Length: 900000\r\n\r\n" + b"[" * 300_000)


def a_stream_that_nobody_reads(client: socket.socket) -> None:
    sent(client, b"GET /api/v1/openrouter/events HTTP/1.1\r\nHost: x\r\n\r\n")


def a_forced_check(client: socket.socket) -> None:
    sent(client, b"GET %s?force_refresh=true HTTP/1.1\r\nHost: x\r\n\r\n" % STATUS)


def a_page(client: socket.socket) -> None:
    sent(client, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")


def a_page_of_an_unknown_scope(client: socket.socket) -> None:
    sent(client, b"GET /?scope=%d HTTP/1.1\r\nHost: x\r\n\r\n" % client.fileno())


def a_large_file_that_nobody_reads(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sent(client, b"GET /page/swagger/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n")


def no_http(client: socket.socket) -> None:
    sent(client, bytes(range(256)) * 100)


ONE = (many_small_headers, one_endless_header, one_endless_path, an_endless_trailer, many_trailers)
FEW = (a_pipeline_that_nobody_reads, a_pipeline_behind_a_body, a_trickle_of_chunks, empty_lines)
MANY = (
    nothing, half_a_head, almost_too_large_a_head, a_body_that_nobody_asked_for, a_slow_body, no_http,
    a_large_body_without_a_token, a_stream_that_nobody_reads, a_forced_check,
    a_page, a_page_of_an_unknown_scope, a_large_file_that_nobody_reads,
)  # fmt: skip
ATTACKS = [(each, count) for attacks, count in ((ONE, 1), (FEW, 100), (MANY, CLIENTS)) for each in attacks]
