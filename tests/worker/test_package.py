"""The package from outside: its public names and its dependencies."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import redis

import openrouter_guard

NAMES = {
    "AsyncGuard",
    "CallNotPermitted",
    "ConfigurationError",
    "ForeignValue",
    "Guard",
    "GuardState",
    "OpenRouterGuardError",
    "OpenRouterState",
    "OpenRouterStateData",
    "OpenRouterStateManager",
    "Settings",
    "StateUnreadable",
    "StoreContended",
    "StoreError",
    "StoreRefused",
    "StoreUnavailable",
    "WorkerOpenRouterReporter",
    "get_circuit_breaker_status",
    "get_openrouter_reporter",
    "refusal_in",
    "open_circuit_breaker",
    "report_openrouter_error",
    "report_openrouter_success",
    "reset_circuit_breaker",
    "was_upstreams_fault",
}
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(openrouter_guard.__path__, "openrouter_guard.")
    if module.name != "openrouter_guard.__main__"
)


def test_the_public_names_are_these_and_no_others() -> None:
    assert set(openrouter_guard.__all__) == set(dir(openrouter_guard)) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(openrouter_guard, name).__name__ == name


def test_another_name_is_an_ordinary_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Gaurd'"):
        _ = openrouter_guard.Gaurd


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_what_it_offers(module: str) -> None:
    loaded = importlib.import_module(module)
    assert [name for name in getattr(loaded, "__all__", ()) if not hasattr(loaded, name)] == []


def bare(script: str, folder: Path) -> str:
    """Run *script* where nothing is installed but this package and redis-py."""
    for package in (openrouter_guard, redis):
        home = Path(str(package.__file__)).parent
        (folder / home.name).symlink_to(home)
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({str(folder)!r})\n{script}"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def test_the_base_install_needs_redis_alone(redis_url: str, tmp_path: Path) -> None:
    script = f"""
from openrouter_guard import *
from openrouter_guard.cli import main

with Guard.from_url({redis_url!r}) as guard:
    with guard.call():
        pass
    guard.flush()
    print(guard.state.phase)
"""
    assert bare(script, tmp_path) == "closed\n"


def test_a_probe_does_not_pay_for_redis_py(redis_url: str, tmp_path: Path) -> None:
    script = f"""
import os
os.environ["REDIS_URL"] = {redis_url!r}
from openrouter_guard.cli import main
status = main(["probe"])
print(status, "redis" in sys.modules, "asyncio" in sys.modules)
"""
    assert bare(script, tmp_path) == "closed\n0 False False\n"
