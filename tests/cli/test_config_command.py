"""``openrouter-guard config``: every setting with its source, and no secret."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from openrouter_guard.cli.fleet.settings_table import SETTINGS, Setting
from openrouter_guard.settings import Settings
from openrouter_operator.settings import OperatorSettings
from tests.cli.commands import run

pytestmark = pytest.mark.slow

DOCUMENT = Path("docs/configuration.md").read_text()
SECRETS = {
    "OPENROUTER_API_KEY": "sk-or-v1-0123456789abcdef",
    "OPENROUTER_MANAGEMENT_KEY": "sk-or-v1-management-0123",
    "OPENROUTER_GUARD_WRITE_TOKEN": "write-token-0123456789",
    "OPENROUTER_GUARD_READ_TOKEN": "read-token-0123456789",
    "OPENROUTER_GUARD_REPORT_TOKEN": "report-token-0123456789",
    "OPENROUTER_GUARD_WEBHOOK_URL": "https://hooks.example/T0/B0/hook-secret",
    "OPENROUTER_GUARD_HEALTH_URLS": "https://status.example/?key=health-secret",
}


def of_operator(environ: Mapping[str, str]) -> OperatorSettings:
    return replace(OperatorSettings.from_env(environ), identity="chance")


READ: dict[str, Callable[[Mapping[str, str]], object]] = {
    "all": Settings.from_env,
    "workers": Settings.from_env,
    "service": Settings.from_env,
    "operator": of_operator,
}
WORDS = {"off", "half", "twice"}
"""They stand for what no variable can say."""
VALUES = [each for each in SETTINGS if each.default and each.default not in WORDS and " " not in each.default]


def documented() -> dict[str, tuple[str, str]]:
    """Default and readers of each variable, as the page has them."""
    found: dict[str, tuple[str, str]] = {}
    for names, default, readers in re.findall(r"^\| (`[^|]+`) \| ([^|]*) \| ([^|]*) \|", DOCUMENT, re.MULTILINE):
        each = [name for name in re.findall(r"`([A-Z0-9_<>]+)`", names) if "<" not in name]
        defaults = default.replace("`", "").split(", ") if len(each) > 1 and "," in default else [default] * len(each)
        found |= {name: (told.replace("`", ""), readers) for name, told in zip(each, defaults, strict=True)}
    return found


def test_it_knows_every_documented_setting_with_its_default_and_its_readers() -> None:
    told = documented()
    assert {each.name for each in SETTINGS} == told.keys()
    for each in SETTINGS:
        default, readers = told[each.name]
        assert each.readers == readers
        assert default.startswith(each.default or "\u2013"), each.name


@pytest.mark.parametrize("setting", VALUES, ids=lambda each: each.name)
def test_a_variable_with_its_default_changes_nothing(setting: Setting) -> None:
    unset = {"REDIS_URL": "redis://redis/0"}
    for reader in setting.readers.split(", "):
        assert READ[reader](unset | {setting.name: setting.default}) == READ[reader](unset)


def test_each_value_has_its_source() -> None:
    done = run("config", "-o=json", REDIS_URL="redis://u:hunter2@redis:6379/0", OPENROUTER_GUARD_PERMITS="4")
    assert (done.returncode, done.stderr) == (0, "")
    found = {each["name"]: each for each in json.loads(done.stdout)["settings"]}
    assert found["REDIS_URL"]["value"] == "redis://redis:6379/0"
    permits = found["OPENROUTER_GUARD_PERMITS"]
    assert (permits["value"], permits["source"], permits["default"]) == ("4", "environment", "2")
    ramp = found["OPENROUTER_GUARD_RAMP_SECONDS"]
    assert (ramp["value"], ramp["source"]) == ("30", "default")


def test_of_a_secret_only_a_fingerprint_is_shown() -> None:
    further = {"OPENROUTER_GUARD_FURTHER_SCOPES": "team-a", "OPENROUTER_API_KEY_TEAM_A": "sk-or-v1-of-team-a-01"}
    for form in ("table", "json", "yaml"):
        done = run("config", f"-o={form}", REDIS_URL="redis://u:hunter2@redis/0", **SECRETS, **further)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count("sha256:") == len(SECRETS) + 1
        for secret in (*SECRETS.values(), *further.values(), "hunter2"):
            assert secret == "team-a" or secret not in done.stdout


def test_what_is_wrong_is_said_beside_the_settings() -> None:
    done = run("config", REDIS_URL="redis://redis/0", OPENROUTER_GUARD_PERMIT="4", OPENROUTER_GUARD_RAMP_SECONDS="-1")
    assert done.returncode == 1
    assert "problem: OPENROUTER_GUARD_PERMIT is not a setting" in done.stdout
    assert "problem: OPENROUTER_GUARD_RAMP_SECONDS is '-1': write seconds above 0" in done.stdout


def test_the_version_and_an_overview() -> None:
    assert run("--version").stdout == f"openrouter-guard {json.loads(run('version', '-o=json').stdout)['version']}\n"
    overview = run(REDIS_URL="redis://u:hunter2@redis:6379/0")
    assert overview.returncode == 0
    assert "redis       redis://redis:6379/0\n" in overview.stdout
    for command in ("status", "history", "workers", "models", "override", "config", "serve", "operate", "rescue"):
        assert f"\n  {command} " in overview.stdout
