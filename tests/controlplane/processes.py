"""Child processes that end with this one, even on ``kill -9``."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Process", "free_port", "run_with_children", "terminate_as_interrupt"]

_PATIENCE_S = 10.0

# Run before the program, in its place: asks the kernel (PR_SET_PDEATHSIG is 1) to kill it when its parent dies, then
# checks that the parent did not die meanwhile. `preexec_fn` could do it too, but is unsafe beside threads.
_LEASH = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class Process:
    """A child in a session of its own, with *workdir* as its directory and for its log.

    Start it from the main thread: to Linux, "its parent" is the thread that started it.
    """

    def __init__(self, program: Path, arguments: Sequence[str], workdir: Path) -> None:
        self.name = program.name
        self.log = workdir / f"{program.name}.log"
        self._command = [*_leash(), str(program), *arguments]
        self._workdir = workdir
        self._child = self._spawn()

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def has_ended(self) -> bool:
        return self._child.poll() is not None

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        self._child.wait()

    def stop(self) -> None:
        """End it: asked first, killed after 10 s."""
        self._signal(signal.SIGTERM)
        self.resume()
        try:
            self._child.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def restart(self) -> None:
        """Crash it, if it runs, and start it again."""
        self.kill()
        self._child = self._spawn()

    def log_tail(self, characters: int = 2000) -> str:
        return self.log.read_text(errors="replace")[-characters:]

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self._command,
                cwd=self._workdir,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _signal(self, number: signal.Signals) -> None:
        if not self.has_ended:
            os.killpg(self._child.pid, number)


def run_with_children(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. If we are interrupted, so are it and its children, and it gets to tidy up."""
    with subprocess.Popen(
        command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as child:
        try:
            output, _ = child.communicate()
        except BaseException:
            os.killpg(child.pid, signal.SIGINT)
            child.communicate()
            raise
    return subprocess.CompletedProcess(command, child.returncode, output)


def free_port() -> int:
    """A port of 127.0.0.1 that is free now; who loses it to somebody else tries again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end us as Ctrl-C does: through every ``finally``. Handlers of others stay."""
    ours: list[signal.Signals] = []
    if threading.current_thread() is threading.main_thread():
        ours = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _leash() -> list[str]:
    if sys.platform != "linux":
        return []
    return [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid())]
