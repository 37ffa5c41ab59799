"""Reads the shared state with the standard library alone, for probes that run every few seconds on slow pods.

A kubelet gives an exec probe one second by default, and importing redis-py alone may take a third of that. This
speaks just enough of Redis' protocol (RESP 2) for one read.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

from .address import address, checked
from .errors import ForeignValue, StoreRefused, StoreUnavailable
from .keys import Keys
from .rules.record import Record
from .rules.wire import FIELDS, parse

__all__ = ["read"]

Reply: TypeAlias = "str | int | list[Reply] | None"


def read(url: str, scope: str, timeout_s: float) -> tuple[Record | None, float]:
    """The record (None: there is none) and the server's time in Unix seconds.

    Raises:
        ConfigurationError: If the address cannot be one of Redis.
        StoreUnavailable: If Redis does not answer in ``timeout_s`` seconds.
        StoreRefused: If it answers with an error.
        ForeignValue: If something else lives under the key.
    """
    commands = [*_login(url), ["TIME"], ["HMGET", Keys(scope).state, *FIELDS]]
    try:
        with _connect(checked(url), timeout_s) as connection, connection.makefile("rb") as replies:
            connection.sendall(b"".join(_encode(command) for command in commands))
            *_, time, values = [_reply(replies) for _ in commands]
    except (OSError, EOFError) as error:
        raise StoreUnavailable(f"Redis at {address(url)} does not answer: {error}") from error
    except ValueError as error:
        raise StoreRefused(f"what answers at {address(url)} is not Redis: look at REDIS_URL") from error
    seconds, micros = _list(time)
    found = {name: str(value) for name, value in zip(FIELDS, _list(values), strict=True) if value is not None}
    return (parse(found) if found else None), float(str(seconds)) + float(str(micros)) / 1e6


def _connect(url: str, timeout_s: float) -> socket.socket:
    parts = urlsplit(url)
    match parts.scheme:
        case "redis" | "rediss":
            connection = socket.create_connection((parts.hostname or "localhost", parts.port or 6379), timeout_s)
        case _:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(timeout_s)
            connection.connect(parts.path)
    if parts.scheme == "rediss":
        authorities = parse_qs(parts.query).get("ssl_ca_certs", [None])[0]
        context = ssl.create_default_context(cafile=authorities)
        connection = context.wrap_socket(connection, server_hostname=parts.hostname)
    return connection


def _login(url: str) -> list[list[str]]:
    parts = urlsplit(url)
    commands = []
    if parts.password:
        commands.append(["AUTH", *([unquote(parts.username)] if parts.username else []), unquote(parts.password)])
    with suppress(ValueError):
        database = int(parse_qs(parts.query).get("db", [parts.path.strip("/")])[0])
        if database:
            commands.append(["SELECT", str(database)])
    return commands


def _encode(command: Sequence[str]) -> bytes:
    words = [word.encode() for word in command]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def _reply(replies: IO[bytes]) -> Reply:
    line = replies.readline()
    if not line.endswith(b"\r\n"):
        raise EOFError("the connection was closed")
    kind, text = line[:1], line[1:-2].decode()
    match kind:
        case b"-" if text.startswith("WRONGTYPE"):
            raise ForeignValue("a value of another type lives under our key")
        case b"-":
            raise StoreRefused(f"Redis will not do it: {text}")
        case b":":
            return int(text)
        case b"$":
            return None if text == "-1" else replies.read(int(text) + 2)[:-2].decode()
        case b"*":
            return [_reply(replies) for _ in range(int(text))]
        case b"+":
            return text
        case _:
            raise ValueError(f"no reply of Redis begins with {line[:1]!r}")


def _list(reply: Reply) -> list[Reply]:
    if not isinstance(reply, list):
        raise StoreRefused(f"Redis answered {reply!r} where a list was expected")
    return reply
