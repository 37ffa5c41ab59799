"""docs/worker.md: its code runs from top to bottom, and it names every public name of the library."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import openrouter_guard
from openrouter_guard import AsyncGuard, Guard, GuardState, OpenRouterStateManager, WorkerOpenRouterReporter
from openrouter_guard.rules.signals import ErrorType
from openrouter_guard.store import Store
from tests.recipes.code import ROOT, code_in, environment
from tests.worker.guards import counters

DOCUMENT = "docs/worker.md"
TEXT = (ROOT / DOCUMENT).read_text()
GIVEN = """
import os

import httpx
import openai

API_KEY, BASE_URL, REDIS_URL = (os.environ[n] for n in ("OPENROUTER_API_KEY", "OPENROUTER_BASE_URL", "REDIS_URL"))
MESSAGES = [{"role": "user", "content": "Why?"}]
client = openai.OpenAI(base_url=BASE_URL, api_key=API_KEY)
async_client = openai.AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY)
http = httpx.Client(base_url=BASE_URL, headers={"Authorization": f"Bearer {API_KEY}"})
"""


@pytest.mark.slow
async def test_its_code_runs_from_top_to_bottom(redis_url: str, base_url: str, tmp_path: Path, store: Store) -> None:
    (tmp_path / "worker.py").write_text("\n".join([GIVEN, *code_in(TEXT)]))
    environ = environment(redis_url, base_url)
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "worker.py"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:3] == [
        "This is a simulated answer.",
        "calls may go, or may be tried",
        "closed",
    ]
    found = await counters(store)
    assert (found["successful_calls"], found["failed_calls"]) == (11, 2)


def public(kind: type[Any]) -> set[str]:
    """Its methods and properties."""
    return {f".{name}" for name in vars(kind) | vars(kind.__mro__[1]) if name.islower() and not name.startswith("_")}


@pytest.mark.parametrize("name", sorted(openrouter_guard.__all__))
def test_each_public_name_is_in_it(name: str) -> None:
    assert name in TEXT


@pytest.mark.parametrize("name", sorted(public(Guard) | public(OpenRouterStateManager)))
def test_so_is_each_method(name: str) -> None:
    assert name in TEXT


@pytest.mark.parametrize("name", [field.name for field in fields(GuardState)])
def test_so_is_all_that_a_worker_sees_of_the_state(name: str) -> None:
    assert f"state.{name}" in TEXT


@pytest.mark.parametrize("reason", ErrorType)
def test_so_is_each_reason_of_a_refusal(reason: ErrorType) -> None:
    assert f"`{reason}`" in TEXT


def test_sync_and_async_offer_the_same() -> None:
    assert public(Guard) == public(AsyncGuard)
    assert public(WorkerOpenRouterReporter) >= {".report_api_error", ".report_api_success"}
