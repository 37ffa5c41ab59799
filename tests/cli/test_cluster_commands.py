"""The commands that need a kubeconfig, on a real API server."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.cli.commands import NOBODY, run
from tests.cli.test_command_line_docs import EXAMPLES, WITH_A_CLUSTER
from tests.cli.test_terminal import COLOUR, Terminal
from tests.controlplane import ControlPlane
from tests.examples import is_like
from tests.operator import foreign
from tests.operator.conftest import (  # noqa: F401  pytest looks fixtures up by their names here
    Fleet,
    Operator,
    crd,
    fleet,
    operator,
    proxy,
    resource,
    start,
)
from tests.operator.proxy import Answer, Proxy, Seen
from tests.waiting import until

pytestmark = pytest.mark.cluster
Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def command(control_plane: ControlPlane, fleet: Fleet) -> Callable[..., CompletedProcess[str]]:  # noqa: F811
    """A command about the namespace, with a kubeconfig and nothing else."""

    def command(*words: str, **environ: str) -> CompletedProcess[str]:
        return run(*words, f"--namespace={fleet.namespace}", KUBECONFIG=str(control_plane.kubeconfig), **environ)

    return command


@pytest.fixture
def ask(command: Callable[..., CompletedProcess[str]]) -> Ask:
    def ask(*words: str, **environ: str) -> dict[str, Any]:
        done = command(*words, "--output=json", **environ)
        assert (done.returncode, done.stderr) == (0, "")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return ask


def documented(beginning: str) -> Any:
    """The example answer of a command in docs/command-line.md."""
    return next(json.loads(text) for line, language, text in EXAMPLES if line.startswith(beginning) and language)


def test_status_and_why_follow_a_pause_from_its_cause_to_its_end(
    fleet: Fleet,  # noqa: F811
    operator: Operator,  # noqa: F811
    ask: Ask,
    redis_url: str,
) -> None:
    fleet.deploy(chat=3)
    fleet.watch()
    found = ask("why", "deploy/chat")
    assert not found["workload"]["paused"]
    words = "Deployment/chat runs: OpenRouterStatus default names it, and would pause it in an outage."
    assert found["explanation"][0] == words

    fleet.force("forced_open")
    fleet.until_replicas(chat=0)
    until(lambda: ask("why", "deployments/chat")["resource"]["progress"])
    found = ask("why", "deploy/chat")
    assert found["workload"] | {"pods": 0, "original_pods": 3, "paused": True} == found["workload"]
    assert found["pause"]["by"] == "default"
    first, second, *_ = found["explanation"]
    assert first.startswith("Deployment/chat is paused: OpenRouterStatus default has paused it, and it had 3 pods")
    assert second.startswith("An override by a test forces the breaker open until ")
    until(lambda: any(each["about"] == "Deployment/chat" for each in ask("why", "deploy/chat")["events"]))
    assert is_like(documented("openrouter-guard why"), ask("why", "deploy/chat"))

    alone = ask("status")
    (told,) = alone["resources"]
    assert (alone["redis"], alone["scopes"]) == (None, [])
    assert (told["name"], told["breaker"]["state"], told["targets"]["paused"]) == ("default", "open", 1)
    assert is_like(documented("openrouter-guard status -n team-a"), alone)
    both = ask("status", REDIS_URL=redis_url)
    assert both["scopes"][0]["state"] == "open"
    assert both["resources"][0]["targets"]["paused"] == 1


def test_a_suspended_resource_leaves_everything_as_it_is_until_it_is_resumed(
    fleet: Fleet,  # noqa: F811
    operator: Operator,  # noqa: F811
    ask: Ask,
) -> None:
    fleet.deploy(chat=2)
    fleet.watch()
    assert ask("suspend", "default")["resource"]["suspend"]
    until(lambda: ask("status")["resources"][0]["current"])
    fleet.force("forced_open")
    until(lambda: ask("status")["resources"][0]["breaker"]["state"] == "open")
    assert fleet.replicas() == {"chat": 2}
    words = "Deployment/chat runs: OpenRouterStatus default names it and does not act (suspended)."
    assert ask("why", "deploy/chat")["explanation"][0] == words
    assert not ask("suspend")["changed"]
    again = ask("resume")
    assert (again["resource"]["suspend"], again["changed"], again["paused"]) == (False, True, [])
    fleet.until_replicas(chat=0)
    assert not ask("resume")["changed"]


def test_suspend_strands_no_workload_unless_told_to(
    fleet: Fleet,  # noqa: F811
    operator: Operator,  # noqa: F811
    command: Callable[..., CompletedProcess[str]],
    ask: Ask,
) -> None:
    fleet.deploy(chat=2)
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(chat=0)
    done = command("suspend")
    assert (done.returncode, done.stdout) == (1, "")
    assert "has paused Deployment/chat, which would stay paused: it was not suspended" in done.stderr
    assert not ask("status")["resources"][0]["suspend"]

    kept = ask("suspend", "--keep-paused")
    assert (kept["resource"]["suspend"], kept["resource"]["current"], kept["changed"]) == (True, True, True)
    assert kept["paused"] == ["Deployment/chat"]
    assert is_like(documented("openrouter-guard suspend default -n team-a -o json"), kept)
    assert "suspended, so it stays as it is until you run" in ask("why", "deploy/chat")["explanation"][1]
    fleet.force("forced_closed")
    until(lambda: ask("status")["resources"][0]["breaker"]["state"] == "closed")
    assert fleet.replicas() == {"chat": 0}
    assert "is suspended already" in (text := command("suspend").stdout)
    assert "stay paused until you resume it:\n  WORKLOAD\n  Deployment/chat" in text
    assert "acts again" in command("resume").stdout
    fleet.until_replicas(chat=2)


def test_suspend_acts_again_if_the_operator_was_faster(
    fleet: Fleet,  # noqa: F811
    operator: Operator,  # noqa: F811
    proxy: Proxy,  # noqa: F811
) -> None:
    fleet.deploy(chat=2)
    fleet.watch()

    fleet.force("forced_open")
    fleet.until_replicas(chat=0)
    # As if it had paused them only after the command's first look.
    nothing = Answer(200, body=b'{"metadata": {}, "items": []}')

    def before_the_change(seen: Seen) -> Answer | None:
        is_changed = any(each.method == "PATCH" for each in proxy.seen)
        return nothing if seen.is_of("deployments") and not is_changed else None

    proxy.rule = before_the_change
    done = run("suspend", f"--namespace={fleet.namespace}", KUBECONFIG=str(proxy.kubeconfig))
    assert done.returncode == 1
    assert "has paused Deployment/chat, which would stay paused: it acts again" in done.stderr
    fleet.force("forced_closed")
    fleet.until_replicas(chat=2)


def test_without_an_operator_suspend_says_so(
    fleet: Fleet,  # noqa: F811
    command: Callable[..., CompletedProcess[str]],
) -> None:
    fleet.apply(resource(targets=[{"kind": "Deployment", "name": "chat"}]))
    assert "No operator has taken that up yet" in command("suspend").stdout
    assert "suspend: true" in command("status", "--output=yaml").stdout


def test_plan_says_what_a_manifest_would_pause_and_changes_nothing(
    fleet: Fleet,  # noqa: F811
    command: Callable[..., CompletedProcess[str]],
    ask: Ask,
    tmp_path: Path,
) -> None:
    fleet.deploy(chat=3, idle=0)
    targets = [
        {"kind": "Deployment", "selector": {"matchLabels": {"fleet": "workers"}}},
        {"kind": "StatefulSet", "name": "queue"},
    ]
    manifest = tmp_path / "resource.yaml"
    manifest.write_text(json.dumps(resource("new", targets=targets)))
    found = ask("plan", f"--file={manifest}")
    assert found["resource"] == {"namespace": fleet.namespace, "name": "new", "exists": False}
    assert found["would_pause"] == [{"workload": "Deployment/chat", "pods": 3, "to": 0}]
    assert found["left_alone"] == [{"workload": "Deployment/idle", "reason": "AlreadyAtZero", "message": None}]
    assert [each["reason"] for each in found["problems"]] == ["NoMatch"]
    assert found["acts"] == "yes"
    assert fleet.replicas() == {"chat": 3, "idle": 0}
    assert is_like(documented("openrouter-guard plan"), found)
    fleet.apply(resource("new", targets=targets[:1], dryRun=True))
    text = command("plan", "new").stdout
    assert "Deployment/chat  3     0" in text
    assert "But it would not act by itself (dryRun)." in text


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (("why", "deploy/nobody"), "there is no Deployment/nobody in namespace test-"),
        (("why", "rollouts.example.org/chat"), "this cluster has no rollouts.example.org"),
        (("why", "deplyo/chat"), "'deplyo' is not a kind of workloads: did you mean deploy?"),
        (("suspend", "nobody"), "there is no OpenRouterStatus nobody in namespace test-"),
        (("plan", "nobody"), "there is no OpenRouterStatus nobody in namespace test-"),
        (("plan", "--file=/nowhere"), "/nowhere cannot be read"),
    ],
)
def test_what_is_not_there_is_one_line(
    command: Callable[..., CompletedProcess[str]], words: tuple[str, ...], advice: str
) -> None:
    done = command(*words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert advice in done.stderr


def test_a_kind_whose_crd_is_missing_is_one_line(fleet: Fleet, proxy: Proxy) -> None:  # noqa: F811
    # Another test may have installed the CRDs of KEDA.
    proxy.rule = lambda seen: Answer(404) if seen.path.startswith("/apis/keda.sh/") else None
    done = run("why", "scaledobject/chat", f"--namespace={fleet.namespace}", KUBECONFIG=str(proxy.kubeconfig))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "openrouter-guard: this cluster has no scaledobjects.keda.sh\n"


def test_custom_kinds_are_planned_and_explained_too(
    fleet: Fleet,  # noqa: F811
    control_plane: ControlPlane,
    ask: Ask,
) -> None:
    foreign.install(control_plane)
    fleet.apply(foreign.rollout("canary", replicas=4))
    target = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "canary"}
    fleet.apply(resource(targets=[target], suspend=True))
    found = ask("plan")
    assert found["would_pause"] == [{"workload": "Rollout/canary", "pods": 4, "to": 0}]
    assert (found["acts"], found["problems"]) == ("no: suspended", [])
    words = "Rollout/canary runs: OpenRouterStatus default names it and does not act (suspended)."
    assert ask("why", "rollouts.argoproj.io/canary")["explanation"] == [words]
    shown = Terminal("plan", f"--namespace={fleet.namespace}", KUBECONFIG=str(control_plane.kubeconfig)).read_all()
    assert COLOUR.search(shown)
    assert "Rollout/canary" in COLOUR.sub("", shown)


def test_status_of_a_cluster_needs_no_redis_but_says_if_a_given_one_is_away(
    command: Callable[..., CompletedProcess[str]],
) -> None:
    assert "not asked: REDIS_URL is not set" in command("status").stdout
    done = command("status", REDIS_URL=NOBODY)
    assert done.returncode == 1
    assert "does not answer" in done.stderr


def test_watch_goes_on_when_the_api_server_answers_again(
    fleet: Fleet,  # noqa: F811
    proxy: Proxy,  # noqa: F811
) -> None:
    fleet.apply(resource(targets=[{"kind": "Deployment", "name": "chat"}]))
    proxy.rule = lambda _seen: Answer(503)
    with watching("status", f"--namespace={fleet.namespace}", KUBECONFIG=str(proxy.kubeconfig)) as (said, failed):
        until(lambda: "spoiled by the test" in failed())
        proxy.rule = None
        until(lambda: '"name": "default"' in said())


@contextmanager
def watching(*words: str, **environ: str) -> Iterator[tuple[Callable[[], str], Callable[[], str]]]:
    """A command that shows one line of JSON again and again: what it has said so far, and its errors."""
    command = [sys.executable, "-m", "openrouter_guard", *words, "--watch", "--output=json"]
    with TemporaryDirectory() as folder:
        said, failed = Path(folder) / "out", Path(folder) / "err"
        with said.open("wb") as out, failed.open("wb") as err:
            process = subprocess.Popen(command, env=os.environ | environ, stdout=out, stderr=err)
        try:
            yield said.read_text, failed.read_text
        finally:
            process.kill()
            process.wait()


def test_doctor_checks_the_cluster(
    fleet: Fleet,  # noqa: F811
    start: Any,  # noqa: F811
    control_plane: ControlPlane,
) -> None:
    environ = {
        "KUBECONFIG": str(control_plane.kubeconfig),
        "OPENROUTER_GUARD_NAMESPACES": fleet.namespace,
        "OPENROUTER_GUARD_LEASE_NAMESPACE": fleet.namespace,
    }

    def checks() -> dict[str, dict[str, Any]]:
        done = run("doctor", "--output=json", **environ)
        found = json.loads(done.stdout)["checks"]
        return {each["check"]: each for each in found if each["area"] == "kubernetes"}

    found = checks()
    assert found["crd"]["verdict"] == "ok", found
    assert found["rights on deployments"]["found"] == f"get, list, watch, patch in {fleet.namespace}"
    assert found["rights on leases"]["verdict"] == "ok"
    assert found["lease"]["verdict"] == "warning"
    start()
    until(lambda: checks()["lease"]["verdict"] == "ok")


def test_doctor_names_each_right_that_is_missing(control_plane: ControlPlane, crd: None) -> None:  # noqa: F811
    done = run("doctor", "--output=json", KUBECONFIG=str(control_plane.kubeconfig_for("nobody")))
    assert (done.returncode, done.stderr) == (1, "")
    found = {each["check"]: each for each in json.loads(done.stdout)["checks"] if each["area"] == "kubernetes"}
    assert found["reachable"]["verdict"] == "ok"
    assert found["crd"]["found"] == "installed; its schema may not be read"
    assert found["rights on deployments"]["verdict"] == "failed"
    assert found["rights on deployments"]["found"] == "may not get, list, watch, patch everywhere"
    assert found["rights on openrouterstatuses/status"]["found"] == "may not update everywhere"
    assert found["rights on leases"]["found"] == "may not get, update, create in default"
    assert {found[name]["verdict"] for name in ("admission policy", "lease")} == {"skipped"}


def test_each_example_of_the_page_runs(
    fleet: Fleet,  # noqa: F811
    operator: Operator,  # noqa: F811
    control_plane: ControlPlane,
    tmp_path: Path,
) -> None:
    fleet.deploy(chat=1)
    fleet.watch()
    (tmp_path / "resource.yaml").write_text(json.dumps(resource("new")))
    places = {"team-a": fleet.namespace, "resource.yaml": str(tmp_path / "resource.yaml")}
    for line in dict.fromkeys(
        command for command, *_ in EXAMPLES if WITH_A_CLUSTER.match(command) and " drill" not in command
    ):
        words = [places.get(word, word) for word in shlex.split(line)[1:]]
        for form in ("yaml",) if "json" in words else ("table", "json"):
            done = run(*words, f"--output={form}", KUBECONFIG=str(control_plane.kubeconfig))
            assert (done.returncode, done.stderr) == (0, ""), (line, form)
            assert done.stdout
