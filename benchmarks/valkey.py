"""The Valkey of the benchmarks, and the faults that they inject into it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, cast

import redis

from openrouter_guard.devtools.embedded import embedded_valkey

__all__ = ["commands", "embedded_valkey", "freeze", "frozen", "kill", "metrics", "without_push"]


def commands(url: str) -> dict[str, int]:
    """Calls so far of each command, those inside scripts included."""
    with closing(redis.Redis.from_url(url)) as client:
        found = cast("dict[str, dict[str, int]]", client.info("commandstats"))
    return {name.removeprefix("cmdstat_").partition("|")[0]: stats["calls"] for name, stats in found.items()}


def metrics(url: str) -> dict[str, int]:
    """All counters of all days of the default scope."""
    totals: dict[str, int] = {}
    with closing(redis.Redis.from_url(url, decode_responses=True)) as client:
        for key in client.scan_iter("openrouter:metrics:*"):
            for name, count in cast("dict[str, str]", client.hgetall(key)).items():
                totals[name] = totals.get(name, 0) + int(count)
    return totals


def without_push(url: str) -> str:
    """The address of a user who may do everything but subscribe."""
    rules = ("on", ">secret", "~*", "&*", "+@all", "-subscribe", "-psubscribe", "-ssubscribe")
    with closing(redis.Redis.from_url(url)) as client:
        cast("Any", client).execute_command("ACL", "SETUSER", "deaf", *rules)
    return url.replace("redis://", "redis://deaf:secret@")


def freeze(url: str) -> int:
    """Stop it as it stands: it accepts connections and never answers. Returns its process, for SIGCONT."""
    pid = _pid(url)
    os.kill(pid, signal.SIGSTOP)
    return pid


@contextmanager
def frozen(url: str) -> Iterator[None]:
    pid = freeze(url)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def kill(url: str) -> None:
    """End it: connections are refused from now on."""
    os.kill(_pid(url), signal.SIGKILL)


def _pid(url: str) -> int:
    with closing(redis.Redis.from_url(url)) as client:
        return int(client.info("server")["process_id"])
