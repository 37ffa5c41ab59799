"""The output on a terminal and in a pipe: colour on the first, none on the second or with ``NO_COLOR``."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from openrouter_guard.store import Store
from tests.store.outages import outage
from tests.waiting import until

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Terminal:
    """A pseudo-terminal of 120 columns, and a command that runs on it."""

    def __init__(self, *words: str, **environ: str) -> None:
        self._ours, theirs = pty.openpty()
        shell = {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40", "PATH": os.environ["PATH"]}
        paths = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "openrouter_guard", *words],
            env={**shell, **paths, **environ},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self.shown = ""

    def read(self) -> str:
        """Read on until there is more, or the end."""
        with suppress(OSError):  # the end of a terminal is an error on Linux
            self.shown += os.read(self._ours, 65_536).decode(errors="replace")
        return self.shown

    def read_all(self) -> str:
        while True:
            before = self.shown
            if self.read() == before:
                break
        assert self.process.wait(30) == 0, self.shown
        os.close(self._ours)
        return self.shown


async def test_status_on_a_terminal_has_colour(redis_url: str, store: Store) -> None:
    await outage(store)
    shown = Terminal("status", REDIS_URL=redis_url).read_all()
    assert COLOUR.search(shown)
    assert "service_unavailable" in COLOUR.sub("", shown)


async def test_no_color_is_obeyed(redis_url: str, store: Store) -> None:
    await outage(store)
    shown = Terminal("status", REDIS_URL=redis_url, NO_COLOR="1").read_all()
    assert "\x1b" not in shown
    assert "service_unavailable" in shown


async def test_a_terminal_that_knows_no_colour_gets_none(redis_url: str, store: Store) -> None:
    await outage(store)
    assert "\x1b" not in Terminal("status", REDIS_URL=redis_url, TERM="dumb").read_all()


async def test_every_table_has_colour_and_the_same_words(redis_url: str, store: Store) -> None:
    await outage(store)
    for command, word in (("history", "service_unavailable"), ("workers", "worker-a"), ("models", "openai/gpt-4o")):
        shown = Terminal(command, REDIS_URL=redis_url).read_all()
        assert COLOUR.search(shown), command
        assert word in COLOUR.sub("", shown), command


@pytest.mark.skipif(signal.getsignal(signal.SIGINT) is signal.SIG_IGN, reason="Ctrl-C is ignored in the background")
async def test_watch_shows_each_change_until_it_is_stopped(redis_url: str, store: Store) -> None:
    terminal = Terminal("status", "--watch", REDIS_URL=redis_url)
    until(lambda: "unknown" in terminal.read(), seconds=30)
    await outage(store)
    until(lambda: "service_unavailable" in terminal.read(), seconds=30)
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.process.wait(30) == 130


@pytest.mark.parametrize("words", [("history",), ("status", "--output=json")])
def test_a_reader_that_goes_away_early_gets_no_traceback(redis_url: str, words: tuple[str, ...]) -> None:
    read, written = os.pipe()
    os.close(read)
    shell = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-m", "openrouter_guard", *words],
        env={**shell, "REDIS_URL": redis_url},
        stdout=written,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    os.close(written)
    assert (done.returncode, done.stderr) == (141, "")
