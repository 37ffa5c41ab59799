"""Processes that each run one function and talk with the benchmark through a pipe."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

__all__ = ["Connection", "Fleet", "preload"]

ANSWER_S = 120.0
_END_S = 10.0
_context = multiprocessing.get_context("forkserver")
# Each process is a fork of one that has loaded this already.
_LOADED = ["openrouter_guard.worker", "benchmarks.existing_status", "openrouter_guard.api"]
_context.set_forkserver_preload(_LOADED)


def preload(modules: Iterable[str]) -> None:
    """Have these loaded as well; without effect where a process was started before."""
    _context.set_forkserver_preload([*_LOADED, *modules])


class Fleet:
    """*count* processes that run ``work(connection, *args)``; none of them outlives the block."""

    def __init__(self, count: int, work: Callable[..., None], *args: object) -> None:
        pipes = [_context.Pipe() for _ in range(count)]
        self._ends = [ours for ours, _ in pipes]
        self._processes = [
            _context.Process(target=_quietly, args=(work, theirs, *args), daemon=True) for _, theirs in pipes
        ]
        for process in self._processes:
            process.start()
        for _, theirs in pipes:
            theirs.close()

    def tell(self, message: object) -> None:
        for end in self._ends:
            end.send(message)

    def answers(self) -> list[Any]:
        """One answer of each process.

        Raises:
            TimeoutError: If one of them does not answer.
        """
        return [_received(end) for end in self._ends]

    @property
    def has_answered(self) -> bool:
        """Whether the answers of all are there, to be taken without a wait."""
        return all(end.poll() for end in self._ends)

    def kill(self) -> None:
        """End all as ``kill -9`` does."""
        for process in self._processes:
            process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.kill()
        for process in self._processes:
            process.join(_END_S)
        self.kill()
        for end in self._ends:
            end.close()


def _quietly(work: Callable[..., None], *args: object) -> None:
    """What a worker says while Redis is away is expected here."""
    logging.disable(logging.ERROR)
    work(*args)


def _received(end: Connection) -> Any:
    if not end.poll(ANSWER_S):
        raise TimeoutError(f"a worker of the benchmark was silent for {ANSWER_S:g} s")
    return end.recv()
