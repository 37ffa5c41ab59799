"""``kubectl get --watch``, line by line."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import IO

from tests.controlplane import kubectl

from .telling import timed

__all__ = ["watching"]

_ORS = ("openrouterstatus",)
_DEPLOYMENTS = (
    "deployments",
    "--output=custom-columns=NAME:.metadata.name,REPLICAS:.spec.replicas,PODS:.status.replicas",
)


@contextmanager
def watching() -> Iterator[None]:
    """Relay the watches of the resource and of the Deployments until the end of the block."""
    with ExitStack() as stack:
        for words in (_ORS, _DEPLOYMENTS):
            stack.enter_context(_relayed(words))
        yield


@contextmanager
def _relayed(words: tuple[str, ...]) -> Iterator[None]:
    command = [str(kubectl()), "get", *words, "--watch"]
    # In a session of its own: Ctrl-C is for us, and we end it.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    with process:
        assert process.stdout
        relay = threading.Thread(target=_relay, args=(words[0], process.stdout))
        try:
            relay.start()
            yield
        finally:
            process.terminate()
            if relay.is_alive():
                relay.join()


def _relay(kind: str, lines: IO[str]) -> None:
    """Pass on what is new: many a change of an object is in none of the columns."""
    shown: dict[str, str] = {}
    with suppress(ValueError):  # where Ctrl-C comes before we have begun, the pipe is closed by now
        for line in lines:
            name = line.split()[0]
            if shown.get(name) != line:
                timed(f"{kind:<18}{line.rstrip()}")
            shown[name] = line
