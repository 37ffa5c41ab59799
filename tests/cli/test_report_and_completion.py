"""``completion``, ``report``, and the second name ``kubectl openrouter``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from openrouter_guard.rules.codec import iso
from openrouter_guard.store import Store
from tests.cli.commands import NOBODY, run
from tests.store.outages import outage

KEY = "sk-or-v1-0123456789abcdef"
COMPLETE = """
{script}
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_openrouter_guard
echo "${{COMPREPLY[@]}}"
"""


def completed(*words: str) -> set[str]:
    """What bash offers for the last of these words."""
    script = run("completion", "bash").stdout
    quoted = " ".join(f"'{word}'" for word in words)
    text = COMPLETE.format(script=script, words=quoted)
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_bash_completes_commands_and_options() -> None:
    assert completed("openrouter-guard", "sta") == {"status"}
    assert {"open", "closed", "off", "clear"} <= completed("openrouter-guard", "override", "")
    assert completed("openrouter-guard", "override", "open", "--re") == {"--reason"}
    assert "--keep-paused" in completed("openrouter-guard", "suspend", "--")
    assert {"--file", "--namespace"} <= completed("openrouter-guard", "plan", "--")
    assert {"--watch", "--output"} <= completed("kubectl-openrouter", "status", "--")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_knows_every_command(shell: str) -> None:
    done = run("completion", shell)
    assert done.returncode == 0
    for command in (
        "status",
        "why",
        "plan",
        "suspend",
        "resume",
        "override",
        "doctor",
        "drill",
        "report",
        "completion",
        "rescue",
    ):
        assert command in done.stdout


async def test_a_report_has_everything_but_secrets(redis_url: str, store: Store, tmp_path: Path) -> None:
    await store.heartbeat(f"worker {KEY}", {"version": "0.1.0", "last_seen": iso(time.time())})
    await outage(store)
    file = tmp_path / "report.json"
    environ = {"REDIS_URL": redis_url, "OPENROUTER_GUARD_WRITE_TOKEN": "write-token-0123456789", "KUBECONFIG": "/no"}
    done = run("report", f"--file={file}", **environ)
    assert (done.returncode, done.stdout) == (0, "")
    found = json.loads(file.read_text())
    assert found["fleet"]["status"][0]["reason"] == "service_unavailable"
    assert found["fleet"]["history"][0]["transitions"]
    assert {each["area"] for each in found["doctor"]["checks"]} >= {"redis", "workers"}
    assert KEY not in file.read_text()
    assert "write-token" not in file.read_text()


def test_a_report_can_be_had_when_everything_is_away() -> None:
    done = run("report", REDIS_URL=NOBODY, KUBECONFIG="/no")
    assert done.returncode == 0
    assert "does not answer" in json.loads(done.stdout)["fleet"]["status"]["error"]
    assert "hunter2" not in done.stdout


def test_kubectl_finds_it_as_a_plugin(tmp_path: Path) -> None:
    scripts = tomllib.loads(Path("pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["kubectl-openrouter"] == scripts["openrouter-guard"]
    plugin = tmp_path / "kubectl-openrouter"
    plugin.write_text(f"#!{sys.executable}\nimport sys\nfrom openrouter_guard.cli import main\nsys.exit(main())\n")
    plugin.chmod(0o755)
    kubectl = Path(sys.executable).parent / "kubectl"
    environ = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [kubectl, "openrouter", "status", "--help"], env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: kubectl openrouter status ")
