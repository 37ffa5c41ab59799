"""The commands that need Redis and nothing else: ``status``, ``history``, ``workers``, ``models``, ``override``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

import pytest
import yaml

from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.rules.codec import iso
from openrouter_guard.store import Store
from tests.cli.commands import NOBODY, run
from tests.store.batches import store_at
from tests.store.outages import outage

pytestmark = pytest.mark.slow


def answer(*words: str, **environ: str) -> dict[str, Any]:
    """What a command answers as JSON."""
    done = run(*words, "--output=json", **environ)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def test_status_says_what_is_wrong_since_when_and_what_is_paused(redis_url: str, store: Store) -> None:
    await outage(store)
    found = answer("status", REDIS_URL=redis_url)
    (scope,) = found["scopes"]
    assert found["redis"] == redis_url
    assert scope["state"] in {"open", "half_open"}
    assert scope["since"]
    assert (scope["reason"], scope["failures"], scope["failure_threshold"]) == ("service_unavailable", 5, 5)
    assert scope["upstream"]["error"]["status_code"] == 503
    assert scope["workers"] == {"live": 1, "known": 1}
    assert scope["paused"][0]["workloads"] == ["Deployment/chat"]
    assert scope["models_cooling"] == 1


async def test_status_in_a_pipe_is_plain(redis_url: str, store: Store) -> None:
    await outage(store)
    done = run("status", REDIS_URL=redis_url)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "reason          service_unavailable\n" in done.stdout
    assert "production  team-a/default  Deployment/chat" in done.stdout


async def test_status_names_every_scope(redis_url: str, store: Store) -> None:
    await outage(store)
    done = run("status", REDIS_URL=redis_url, OPENROUTER_GUARD_FURTHER_SCOPES="team-a")
    head, first, second, *_ = done.stdout.splitlines()
    assert head.split()[:3] == ["SCOPE", "STATE", "SINCE"]
    assert first.startswith("default  ")
    assert second.startswith("team-a   unknown")


def test_a_scope_of_which_nothing_is_known_is_not_called_closed(redis_url: str) -> None:
    (scope,) = answer("status", "--scope=team-b", REDIS_URL=redis_url)["scopes"]
    assert (scope["scope"], scope["state"], scope["since"], scope["upstream"]) == ("team-b", "unknown", None, None)


async def test_history_workers_and_models(redis_url: str, store: Store) -> None:
    await outage(store)
    (history,) = answer("history", REDIS_URL=redis_url)["scopes"]
    assert [(each["from"], each["to"], each["reason"]) for each in history["transitions"]] == [
        ("closed", "open", "service_unavailable")
    ]
    (workers,) = answer("workers", REDIS_URL=redis_url)["scopes"]
    assert [(each["worker_id"], each["version"], each["live"]) for each in workers["workers"]] == [
        ("worker-a", "0.1.0", True)
    ]
    assert workers["workers"][0]["last_error"]["error_message"] == "HTTP 503"
    (models,) = answer("models", REDIS_URL=redis_url)["scopes"]
    assert [(each["model"], each["cooling"], each["reason"]) for each in models["models"]] == [
        ("openai/gpt-4o", True, "rate_limited")
    ]
    for command, empty in (("history", "no transition so far"), ("workers", "no worker"), ("models", "no model")):
        assert empty in run(command, "--scope=team-b", REDIS_URL=redis_url).stdout


async def test_yaml_says_the_same_as_json(redis_url: str, store: Store) -> None:
    await outage(store)
    done = run("history", "--output=yaml", REDIS_URL=redis_url)
    as_json = answer("history", REDIS_URL=redis_url)
    assert yaml.safe_load(done.stdout)["scopes"][0]["transitions"] == as_json["scopes"][0]["transitions"]


async def test_text_that_others_wrote_reaches_no_terminal_as_a_command(redis_url: str, store: Store) -> None:
    await store.heartbeat("evil\x1b]0;owned\x07\nroot", {"version": "1", "last_seen": iso(time.time())})
    await outage(store)
    for form in ("table", "json", "yaml"):
        done = run("workers", f"--output={form}", REDIS_URL=redis_url)
        assert "evil" in done.stdout
        assert not {"\x1b", "\x07"} & set(done.stdout)


@pytest.mark.parametrize(
    ("word", "kind", "phase"),
    [("open", "forced_open", "open"), ("closed", "forced_closed", "closed"), ("off", "disabled", "closed")],
)
def test_an_override_holds_until_its_end_or_until_it_is_cleared(
    redis_url: str, word: str, kind: str, phase: str
) -> None:
    words = ("override", word, "--for=30m", "--reason=the invoice is in dispute", "--by=ann")
    (scope,) = answer(*words, REDIS_URL=redis_url)["scopes"]
    assert scope["state"] == phase
    assert {name: scope["override"][name] for name in ("kind", "who", "why")} == {
        "kind": kind,
        "who": "ann",
        "why": "the invoice is in dispute",
    }
    (scope,) = answer("override", "clear", "--by=ben", REDIS_URL=redis_url)["scopes"]
    assert (scope["state"], scope["override"]) == ("closed", None)
    (history,) = answer("history", REDIS_URL=redis_url)["scopes"]
    assert [(each["reason"], each["by"]) for each in history["transitions"]] == [
        ("override_ended", "ben"),
        (kind, "ann"),
    ]


async def test_an_override_concerns_one_scope(redis_url: str) -> None:
    done = run("override", "open", "--for=1h", "--reason=drill", "--scope=team-a", REDIS_URL=redis_url)
    assert done.returncode == 0
    async with store_at(redis_url, "team-a") as there, store_at(redis_url) as here:
        seen = await there.read()
        assert seen.record
        assert seen.record.phase(seen.now) is BreakerState.OPEN
        assert (await here.read()).record is None


@pytest.mark.parametrize("for_", ["30", "0m", "1w", "-5m", "", "31d", "30m ago"])
def test_an_override_without_a_proper_end_is_refused(redis_url: str, for_: str) -> None:
    done = run("override", "open", f"--for={for_}", "--reason=drill", REDIS_URL=redis_url)
    assert done.returncode in {1, 2}
    assert "30d" in done.stderr or "write a time such as 90s, 30m, 2h or 1h30m" in done.stderr


@pytest.mark.parametrize("command", ["status", "history", "workers", "models"])
def test_a_redis_that_is_away_is_one_line_with_what_to_do(command: str) -> None:
    done = run(command, REDIS_URL=NOBODY)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("openrouter-guard: Redis at redis://127.0.0.1:1/0 does not answer")
    assert "check REDIS_URL" in done.stderr
    assert "hunter2" not in done.stderr


def test_without_an_address_one_line_says_what_to_set() -> None:
    done = run("status")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "REDIS_URL is not set" in done.stderr


def test_they_load_no_framework_and_work_without_rich(redis_url: str) -> None:
    script = (
        "import sys\n"
        "for name in ('rich', 'yaml', 'pydantic', 'fastapi', 'kopf', 'kubernetes'): sys.modules[name] = None\n"
        "from openrouter_guard.cli import main\n"
        "sys.exit(main(['status']))\n"
    )
    environ = os.environ | {"REDIS_URL": redis_url}
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("scope")
