"""Reads the shared state with only the standard library, for probes that run every few seconds on slow pods.

A kubelet gives an exec probe one second by default, and importing redis-py alone may take a third of that. This
module implements only the part of Redis' protocol (RESP 2) that one read needs.
"""

from __future__ import annotations

import _thread
import io
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import IO, Any, TypeAlias

from .address import Address, Tls, Topology
from .errors import ConfigurationError, ForeignValue, StoreRefused, StoreUnavailable
from .keys import Keys
from .rules.codec import FIELDS, parse
from .rules.shared_state import SharedState
from .rules.units import DAY_S
from .unreadable import unreadable_errors

__all__ = ["is_known", "read"]

Reply: TypeAlias = "str | int | _Error | list[Reply] | None"
Command: TypeAlias = "list[str]"
Host: TypeAlias = tuple[str, int]
Info: TypeAlias = "tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]"
"""As ``getaddrinfo`` returns it."""

_DAYS = 30
_LINE_MOST = 65_536
_MOVES = 3
"""Maximum number of redirects by a Cluster."""


class _Error(str):
    """A command that Redis refused, with the reason."""

    __slots__ = ()


def read(address: Address, scope: str, timeout_s: float) -> tuple[SharedState | None, float]:
    """Return the record (None: there is none) and the server's time in Unix seconds.

    Raises:
        StoreUnavailable: If Redis does not answer within ``timeout_s`` seconds, including the search for it.
        StoreRefused: If it answers with an error.
        StateUnreadable: If the stored state cannot be decoded.
        ForeignValue: If the key holds a foreign value.
    """
    deadline = time.monotonic() + timeout_s
    try:
        key = Keys(scope).state
        replies = _answers(address, [["HMGET", key, *FIELDS], ["TIME"]], deadline)
        values, clock = (_checked(reply, address, key) for reply in replies)
    except (OSError, EOFError) as error:
        raise StoreUnavailable(f"Redis at {address} does not answer: {error}") from error
    except (ValueError, LookupError, ArithmeticError, MemoryError, RecursionError) as error:
        raise StoreRefused(f"the server at {address} is not Redis: look at REDIS_URL") from error
    with unreadable_errors(str(address)):
        seconds, micros = _list(clock)
        found = {name: str(value) for name, value in zip(FIELDS, _list(values), strict=True) if value is not None}
        now = float(str(seconds)) + float(str(micros)) / 1e6
        return (parse(found, now) if found else None), now


def is_known(address: Address, scope: str, now: float, timeout_s: float) -> bool:
    """Return whether the scope was ever used, as far as the rights allow: its counters are kept for 30 days.

    Args:
        address: Address of Redis, which has just answered.
        scope: The scope without a state, which expires if there are no calls.
        now: Redis' clock, Unix seconds.
        timeout_s: How long Redis may take.
    """
    keys = Keys(scope)
    traces = [keys.history, keys.workers, *(keys.metrics(now - DAY_S * back) for back in range(_DAYS))]
    try:
        (found,) = _answers(address, [["EXISTS", *traces]], time.monotonic() + timeout_s)
    except (OSError, EOFError, ValueError, StoreRefused):
        return False
    return isinstance(found, int) and found > 0


def _answers(address: Address, question: Sequence[Command], deadline: float) -> list[Reply]:
    """Send the commands to the server with the key of the first one."""
    if address.topology is Topology.SENTINEL:
        replies = _ask(address, _primary(address, deadline), question, deadline)
    else:
        replies = _first(address.hosts or (("", 0),), lambda host: _ask(address, host, question, deadline))
    for _ in range(_MOVES):
        first = replies[0]
        word, _, where = first.partition(" ") if isinstance(first, _Error) else ("", "", "")
        if address.topology is not Topology.CLUSTER or word not in ("MOVED", "ASK"):
            break
        host, _, port = where.split()[1].rpartition(":")
        # It applies only to the next command.
        asking = [["ASKING"]] if word == "ASK" else []
        replies = _ask(address, (host, int(port)), [*asking, *question], deadline)[len(asking) :]
    return replies


def _primary(address: Address, deadline: float) -> Host:
    question = [["SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.service]]
    sentinels = replace(address, login=address.sentinel_login, database=0)
    (found,) = _first(address.hosts, lambda host: _ask(sentinels, host, question, deadline))
    if not isinstance(found, list):
        raise StoreRefused(f"the Sentinels of {address} do not name the address of Redis ({found or 'unknown name'})")
    return str(found[0]), int(str(found[1]))


def _first(hosts: Sequence[Host], ask: Callable[[Host], list[Reply]]) -> list[Reply]:
    """Return the answer of the first server that answers."""
    for host in hosts[:-1]:
        with suppress(OSError, EOFError):
            return ask(host)
    return ask(hosts[-1])


def _ask(address: Address, host: Host, question: Sequence[Command], deadline: float) -> list[Reply]:
    login = _login(address)
    commands = [*login, *question]
    with _connect(address, host, deadline) as connection:
        connection.sendall(b"".join(_encode(command) for command in commands))
        replies = io.BufferedReader(_Incoming(connection, deadline))
        answers = [_reply(replies) for _ in commands]
    for answer in answers[: len(login)]:
        _checked(answer, address)
    return answers[len(login) :]


class _Incoming(io.RawIOBase):
    """The bytes of a connection until the deadline, however slowly they come: a socket has a limit for each read."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        self._connection.settimeout(left_s)
        return self._connection.recv_into(buffer)


def _connect(address: Address, host: Host, deadline: float) -> socket.socket:
    encrypted = _encryption(address, address.tls, host[0]) if address.tls else None
    left_s = max(deadline - time.monotonic(), 0.001)
    if address.topology is Topology.SOCKET:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(left_s)
        connection.connect(address.path)
        return connection
    connection = _connected(_addresses(host, deadline), deadline)
    return encrypted(connection) if encrypted else connection


def _connected(addresses: Sequence[Info], deadline: float) -> socket.socket:
    """Connect to the first address that accepts it."""
    failed = OSError("the name has no address")
    for family, kind, protocol, _, where in addresses:
        connection = socket.socket(family, kind, protocol)
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            connection.connect(where)
        except OSError as error:
            connection.close()
            failed = error
        else:
            return connection
    raise failed


def _addresses(host: Host, deadline: float) -> Sequence[Info]:
    # As bytes if the name is ASCII: as text, Python would load large Unicode tables.
    name: Any = host[0].encode() if host[0].isascii() else host[0]
    with suppress(socket.gaierror):
        return socket.getaddrinfo(name, host[1], type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    found = _in_time(lambda: socket.getaddrinfo(name, host[1], type=socket.SOCK_STREAM), deadline)
    if found is None:
        raise TimeoutError(f"no answer from DNS for {host[0]}")
    return found


def _in_time(look_up: Callable[[], Sequence[Info]], deadline: float) -> Sequence[Info] | None:
    """Return the result, or None if it takes too long.

    The system's search for a name has no limit that we can set. So it gets a thread, which ends with the process.
    """
    found: list[Sequence[Info] | OSError] = []
    searching = _thread.allocate_lock()
    searching.acquire()

    def search() -> None:
        try:
            found.append(look_up())
        except OSError as error:
            found.append(error)
        searching.release()

    _thread.start_new_thread(search, ())
    searching.acquire(timeout=max(deadline - time.monotonic(), 0.001))
    if found and isinstance(found[0], OSError):
        raise found[0]
    return found[0] if found else None  # type: ignore[return-value]


def _encryption(address: Address, tls: Tls, hostname: str) -> Callable[[socket.socket], socket.socket]:
    # Imported here: without TLS, it should cost nothing.
    import ssl

    try:
        context = ssl.create_default_context(cafile=tls.ca_certs or None)
        context.check_hostname = tls.verifies and tls.checks_hostname
        context.verify_mode = ssl.CERT_REQUIRED if tls.verifies else ssl.CERT_NONE
        if tls.certfile:
            context.load_cert_chain(tls.certfile, tls.keyfile or None)
    except (OSError, ValueError) as error:
        files = ", ".join(f"{option}={file}" for option, file in tls.files.items())
        raise ConfigurationError(f"a file that REDIS_URL names cannot be used ({files}): {error}") from error

    def encrypted(connection: socket.socket) -> socket.socket:
        try:
            return context.wrap_socket(connection, server_hostname=hostname)
        except ssl.SSLError as error:
            connection.close()
            raise StoreRefused(
                f"Redis at {address}: TLS failed ({getattr(error, 'verify_message', '') or error.reason}): "
                "look at the ssl_… options of REDIS_URL"
            ) from error

    return encrypted


def _login(address: Address) -> list[Command]:
    login = address.login
    commands: list[Command] = []
    if login.username or login.password:
        commands.append(["AUTH", *filter(None, [login.username]), login.password])
    if address.database:
        commands.append(["SELECT", str(address.database)])
    return commands


def _encode(command: Command) -> bytes:
    words = [word.encode() for word in command]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def _reply(replies: IO[bytes]) -> Reply:
    line = replies.readline(_LINE_MOST)
    if not line.endswith(b"\r\n"):
        raise EOFError("the connection was closed")
    kind, text = line[:1], line[1:-2].decode(errors="replace")
    match kind:
        case b"-":
            return _Error(text)
        case b":":
            return int(text)
        case b"$":
            return None if text == "-1" else replies.read(int(text) + 2)[:-2].decode(errors="replace")
        case b"*":
            return None if text == "-1" else [_reply(replies) for _ in range(int(text))]
        case b"+":
            return text
        case _:
            raise ValueError(f"no reply of Redis begins with {line[:1]!r}")


def _checked(reply: Reply, address: Address, key: str = "") -> Reply:
    if isinstance(reply, _Error) and reply.startswith("WRONGTYPE"):
        raise ForeignValue(f"a value of another type lives under the key {key} in Redis at {address}")
    if isinstance(reply, _Error):
        raise StoreRefused(f"Redis at {address} refuses the command: {reply}")
    return reply


def _list(reply: Reply) -> list[Reply]:
    if not isinstance(reply, list):
        raise StoreRefused(f"Redis answered {reply!r} where a list was expected")
    return reply
