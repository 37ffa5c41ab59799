"""``python -m tests.demo`` shows a whole outage, reports failures, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.waiting import until

_COMMAND = (sys.executable, "-m", "tests.demo")
_on_a_cluster = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.usefixtures("control_plane"),  # without one: skipped
]


@pytest.fixture(scope="module")
def shown() -> dict[str, str]:
    """What the demo shows, by heading."""
    done = subprocess.run(_COMMAND, capture_output=True, text=True, timeout=110)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    _, *parts = re.split(r"^== (.+) ==$", done.stdout, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


class TestAWholeOutage:
    pytestmark = _on_a_cluster

    @pytest.mark.parametrize(
        ("phase", "row"),
        [
            pytest.param("Before", r"default +active +closed +\d+ +0/3 +True", id="calls go through"),
            pytest.param("Paused", r"default +service_unavailable +open +\d+ +3/3 +True", id="all are paused"),
            pytest.param("Half-open", r"default +service_unavailable +half_open +\d+ +2/3 +True", id="one has a pod"),
            pytest.param("Resuming", r"default +active +closed +0 +\d/3 +True", id="calls go through again"),
            pytest.param("After", r"default +active +closed +0 +0/3 +True", id="none is paused"),
        ],
    )
    def test_each_phase_has_its_table(self, shown: dict[str, str], phase: str, row: str) -> None:
        assert "$ kubectl get openrouterstatus\nNAME      STATE" in shown[phase]
        assert re.search(f"^{row} ", shown[phase], re.MULTILINE)

    @pytest.mark.parametrize(("phase", "pods"), [("Before", (7, 3, 1)), ("Paused", (0, 0, 0)), ("After", (7, 3, 1))])
    def test_the_deployments_go_to_0_and_come_back(
        self, shown: dict[str, str], phase: str, pods: tuple[int, int, int]
    ) -> None:
        assert re.findall(r"^(\w+) +0/(\d+) ", shown[phase], re.MULTILINE) == [
            (name, str(count)) for name, count in zip(("chat", "summaries", "translations"), pods, strict=True)
        ]

    def test_the_watch_shows_how_they_go(self, shown: dict[str, str]) -> None:
        going = shown["The outage begins: OpenRouter answers 503"]
        assert re.search(r"deployments +chat +7 +7\n(.*\n)*.*deployments +chat +0 ", going)
        assert re.search(r"openrouterstatus +default +service_unavailable +open ", going)

    def test_the_events_tell_it_once_more(self, shown: dict[str, str]) -> None:
        told = re.findall(r"^  (?:Normal|Warning) +(\w+)", shown["What remains: the events"], re.MULTILINE)
        assert sorted(told) == ["BreakerClosed", "BreakerHalfOpen", "BreakerOpened", "Pausing", "Resumed", "Resuming"]


class TestAnEarlyEnd:
    pytestmark = _on_a_cluster

    def test_a_program_that_ends_fails_the_demo_with_its_log(self) -> None:
        with demo_at("== Before ==") as (demo, started):
            os.kill(next(pid for pid, command in started.items() if "operate" in command), signal.SIGKILL)
            _, said = demo.communicate(timeout=60)

            assert demo.returncode == 1
            assert "The demo failed: not reached: every Deployment is at 0. Ended by itself: operator" in said
            assert re.search(r"^-- operator\n.*operating on https://127", said, re.MULTILINE)
            assert "Traceback" not in said
            until(lambda: not alive(started))

    @pytest.mark.skipif(
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN, reason="Ctrl-C is ignored in the background"
    )
    def test_ctrl_c_ends_all_of_it(self) -> None:
        with demo_at("== Before ==") as (demo, started):
            os.killpg(demo.pid, signal.SIGINT)
            _, said = demo.communicate(timeout=60)

            assert (demo.returncode, said) == (130, "")
            until(lambda: not alive(started))


def test_without_a_control_plane_it_says_how_to_get_one(tmp_path: Path) -> None:
    environ = os.environ | {"KUBEBUILDER_ASSETS": str(tmp_path)}

    done = subprocess.run(_COMMAND, env=environ, capture_output=True, text=True, timeout=60)

    assert done.returncode == 1
    assert done.stderr == f"KUBEBUILDER_ASSETS names {tmp_path}, where there is no etcd: correct or unset it\n"


@contextmanager
def demo_at(heading: str) -> Iterator[tuple[subprocess.Popen[str], dict[int, str]]]:
    """The demo once it prints *heading*, and the processes that it has started, with their commands."""
    with subprocess.Popen(
        _COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as demo:
        assert demo.stdout
        try:
            assert any(line.strip() == heading for line in demo.stdout)
            yield demo, children(demo.pid)
        finally:
            demo.kill()


def children(parent: int) -> dict[int, str]:
    """The processes of that parent, and their commands."""
    found = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            if f"\nPPid:\t{parent}\n" in status.read_text():
                found[int(status.parent.name)] = status.with_name("cmdline").read_text()
        except OSError:  # it has just ended
            continue
    return found


def alive(pids: dict[int, str]) -> list[str]:
    return [command for pid, command in pids.items() if Path(f"/proc/{pid}").exists()]
