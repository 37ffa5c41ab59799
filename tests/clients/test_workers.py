"""The workers of docs/other-languages.md, taken from the page, in an outage: a real service, node and go."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from openrouter_guard.testing import SimulatedOpenRouter, running
from tests.cli.commands import serving_on
from tests.clients.test_typescript import FOLDER, OPTIONS, run
from tests.controlplane.build import GO_NEEDED
from tests.ports import free_port
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

PAGE = Path(__file__).parents[2] / "docs" / "other-languages.md"
LINES_MOST = 80
TOKEN = "report-0123456789abcdef0123456789"
CHAT = "/chat/completions"
WAIT_S = 3.0
LANGUAGES = ("ts", "go")
NO_NODE = "The TypeScript worker runs with Node.js 18 or newer, and npm: {} not in PATH (apt-get install nodejs npm)"
NO_GO = f"The Go worker is built with Go {GO_NEEDED[0]}.{GO_NEEDED[1]} or newer: {{}}"
Command = Sequence[str | Path]


def code(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture(scope="module")
def typescript(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The worker, compiled in the strict way, for a Node.js that is older than the page asks for may run the test."""
    if missing := [name for name in ("node", "npm") if not shutil.which(name)]:
        words = NO_NODE.format(" and ".join(missing))
        if os.environ.get("TESTS_REQUIRE_NODE") == "1":
            pytest.fail(words)
        pytest.skip(words)
    folder = tmp_path_factory.mktemp("worker-ts")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(FOLDER / name, folder)
    run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", folder=folder, seconds=300)
    (folder / "worker.ts").write_text(code("ts"))
    compiling = [option for option in OPTIONS if option != "--noEmit"]
    run(folder / "node_modules/.bin/tsc", *compiling, "worker.ts", folder=folder)
    return ["node", folder / "worker.js"]


@pytest.fixture(scope="module")
def golang(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The worker, formatted and vetted as its users would have it."""
    go = shutil.which("go")
    said = subprocess.run([go, "version"], capture_output=True, text=True).stdout.strip() if go else "not in PATH"
    version = re.search(r"go(\d+)\.(\d+)", said)
    if not go or not version or (int(version[1]), int(version[2])) < GO_NEEDED:
        pytest.skip(NO_GO.format(said))
    folder = tmp_path_factory.mktemp("worker-go")
    (folder / "main.go").write_text(code("go"))
    run(go, "mod", "init", "worker", folder=folder)
    run(go, "vet", ".", folder=folder)
    run(go, "build", "-o", "worker", ".", folder=folder)
    assert subprocess.run([go, "fmt", "."], cwd=folder, capture_output=True, text=True).stdout == ""
    return [folder / "worker"]


@pytest.fixture
def commands(request: pytest.FixtureRequest) -> Mapping[str, Command]:
    names = {"ts": "typescript", "go": "golang"}
    return {language: request.getfixturevalue(names[language]) for language in request.param}


together = pytest.mark.parametrize("commands", [LANGUAGES], ids="+".join, indirect=True)
alone = pytest.mark.parametrize("commands", [(language,) for language in LANGUAGES], ids="+".join, indirect=True)


@dataclass
class Fleet:
    """A service without an API key, workers, and what they call."""

    simulated: SimulatedOpenRouter
    folder: Path
    settings: dict[str, str]
    port: int
    service: ExitStack

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v1/openrouter"

    def start(self) -> None:
        log = self.folder / f"service-{time.monotonic_ns()}.log"
        self.service.enter_context(serving_on(self.port, log, self.settings))

    @property
    def calls(self) -> int:
        return self.simulated.requests.get(CHAT, 0)

    def calls_in(self, seconds: float) -> int:
        before = self.calls
        time.sleep(seconds)
        return self.calls - before

    def ask(self, path: str, body: object = None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    @property
    def breaker(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("/status")["circuit_breaker"]
        return found

    def until(self, state: str, seconds: float = 30.0) -> dict[str, Any]:
        until(lambda: self.breaker["state"] == state, seconds=seconds)
        return self.breaker


@contextmanager
def fleet(
    redis_url: str, folder: Path, commands: Mapping[str, Command], **settings: str
) -> Iterator[tuple[Fleet, dict[str, subprocess.Popen[bytes]]]]:
    simulated = SimulatedOpenRouter()
    with ExitStack() as stack:
        base_url = stack.enter_context(running(simulated))
        ours = {
            "REDIS_URL": redis_url,
            "OPENROUTER_BASE_URL": base_url,
            "OPENROUTER_GUARD_REPORT_TOKEN": TOKEN,
            "OPENROUTER_GUARD_FIRST_WAIT_SECONDS": str(WAIT_S),
            "OPENROUTER_GUARD_LONGEST_WAIT_SECONDS": str(WAIT_S),
            **{f"OPENROUTER_GUARD_{name.upper()}": value for name, value in settings.items()},
        }
        found = Fleet(simulated, folder, ours, free_port(), stack.enter_context(ExitStack()))
        found.start()
        given = {"GUARD_URL": found.url, "GUARD_KEY": TOKEN, "OPENROUTER_URL": base_url}
        workers = {}
        for language, command in commands.items():
            environ = {**os.environ, **given, "WORKER_ID": f"{language}-1", "OPENROUTER_KEY": "any"}
            workers[language] = process = subprocess.Popen(command, env=environ)
            stack.callback(process.wait, 30)
            stack.callback(process.kill)
        until(lambda: found.calls >= 10)
        yield found, workers


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_is_short(language: str) -> None:
    assert len(code(language).splitlines()) <= LINES_MOST


@together
def test_an_outage_from_its_beginning_to_its_end(
    redis_url: str, tmp_path: Path, commands: Mapping[str, Command], capsys: pytest.CaptureFixture[str]
) -> None:
    with fleet(redis_url, tmp_path, commands) as (workers, _):
        workers.simulated.switch("outage")
        began_at = time.monotonic()
        workers.until("open", 10)
        opened_s = time.monotonic() - began_at
        time.sleep(1.0)
        while_open = workers.calls_in(1.0)
        # Trial calls that fail open it again, and are no more than two at a time.
        again = workers.calls
        until(lambda: workers.calls > again, seconds=10)
        time.sleep(0.5)
        trials = workers.calls - again
        workers.until("open", 10)
        time.sleep(WAIT_S / 2)
        retry_s = datetime.fromisoformat(workers.breaker["retry_at"]).timestamp()
        workers.simulated.switch("healthy")
        well_s = time.time()
        workers.until("closed", 20)
        closed_s = time.time()
        back = workers.calls
        until(lambda: workers.calls > back + 5)
        reporters = {each["worker_id"] for each in workers.ask("/workers")["workers"]}
    late_s = closed_s - max(well_s, retry_s)
    with capsys.disabled():
        print(f"\nopened after {opened_s:.1f} s; closed {closed_s - well_s:.1f} s after the return,", end=" ")
        print(f"{late_s:.1f} s after half-open; {while_open} calls while open, {trials} trial calls")
    assert while_open == 0, "calls go while the breaker is open"
    assert trials <= 2
    assert late_s < 3.0
    assert reporters >= {f"{language}-1" for language in commands}


@alone
def test_a_trial_call_longer_than_its_lease_closes_it_too(
    redis_url: str, tmp_path: Path, commands: Mapping[str, Command]
) -> None:
    with fleet(redis_url, tmp_path, commands, permit_lease_seconds="1") as (workers, _):
        workers.simulated.switch("outage")
        workers.until("open", 10)
        workers.simulated.switch("healthy", delay_s=2.5)
        workers.until("closed", WAIT_S + 5)


@alone
def test_just_after_an_outage_of_a_large_fleet_only_a_share_goes(
    redis_url: str, tmp_path: Path, commands: Mapping[str, Command]
) -> None:
    with fleet(redis_url, tmp_path, commands) as (workers, _):
        usual = workers.calls_in(2.0)
        for number in range(40):
            report = {"worker_id": f"other-{number}", "results": [{"success": True}]}
            workers.ask("/reports", report)
        workers.simulated.switch("outage")
        for number in range(40):
            failed = {"worker_id": f"other-{number}", "results": [{"success": False, "status_code": 503}]}
            workers.ask("/reports", failed)
        workers.until("open", 10)
        workers.simulated.switch("healthy")
        workers.until("closed", WAIT_S + 5)
        assert workers.breaker["ramp"] < 0.5
        # The share grows meanwhile.
        assert workers.calls_in(2.0) < 0.75 * usual


@alone
def test_without_a_service_calls_go_on_and_an_opening_that_is_known_stands(
    redis_url: str, tmp_path: Path, commands: Mapping[str, Command]
) -> None:
    with fleet(redis_url, tmp_path, commands, first_wait_seconds="6", longest_wait_seconds="6") as (workers, _):
        workers.service.close()
        assert workers.calls_in(1.0) > 0
        workers.start()
        (name,) = (f"{language}-1" for language in commands)

        def counted() -> int:
            days = workers.ask("/metrics?days=1")["metrics"].values()
            return sum(day.get("total_calls", 0) for day in days)

        before = workers.calls
        until(lambda: counted() >= before, seconds=10)
        assert name in {each["worker_id"] for each in workers.ask("/workers")["workers"]}
        workers.simulated.switch("outage")
        workers.until("open", 10)
        time.sleep(1.0)
        workers.service.close()
        workers.simulated.switch("healthy")
        assert workers.calls_in(2.0) == 0
        until(lambda: workers.calls_in(0.5) > 0, seconds=15)


@pytest.mark.parametrize("commands", [("ts",)], ids="+".join, indirect=True)
def test_the_first_one_reports_what_is_left_before_it_ends(
    redis_url: str, tmp_path: Path, commands: Mapping[str, Command]
) -> None:
    with fleet(redis_url, tmp_path, commands) as (_, processes):
        processes["ts"].send_signal(signal.SIGTERM)
        assert processes["ts"].wait(5) == 0
