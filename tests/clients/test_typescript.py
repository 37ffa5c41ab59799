"""A client of the health service that openapi-typescript generates: every answer is of the type that it expects."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.clients.tour import JSON, Answer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

FOLDER = Path(__file__).parent / "typescript"
MISSING = (
    "The TypeScript client is generated with Node.js 18 or newer and npm, and they are not in PATH: install them "
    "(Debian: apt-get install nodejs npm)"
)
OPTIONS = ["--strict", "--target", "es2022", "--module", "nodenext", "--noEmit", "--skipLibCheck"]
# What a user would write: it compiles if the names and types are what they look like.
USE = """
import createClient from "openapi-fetch";
import type { paths } from "./client.js";

export async function retryAt(baseUrl: string): Promise<string | null> {
  const { data, error } = await createClient<paths>({ baseUrl }).GET("/api/v1/openrouter/status");
  if (error) throw new Error(error.errors?.[0]?.detail ?? error.detail);
  return data.circuit_breaker.retry_at;
}

export async function failedCalls(baseUrl: string): Promise<number> {
  const { data } = await createClient<paths>({ baseUrl }).GET("/api/v1/openrouter/metrics", {
    params: { query: { days: 7 } },
  });
  return Object.values(data?.metrics ?? {}).reduce((sum, day) => sum + (day.failed_calls ?? 0), 0);
}

export async function paused(baseUrl: string): Promise<string[]> {
  const { data } = await createClient<paths>({ baseUrl }).GET("/api/v1/openrouter/paused");
  return data?.clusters.flatMap((cluster) => cluster.details.workloads ?? []) ?? [];
}
"""


def run(*command: str | Path, folder: Path, seconds: float = 120) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="module")
def project(document_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the generated client and a compiler."""
    if not (shutil.which("node") and shutil.which("npm")):
        if os.environ.get("TESTS_REQUIRE_NODE") == "1":
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    folder = tmp_path_factory.mktemp("typescript")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(FOLDER / name, folder)
    run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", folder=folder, seconds=300)
    run(folder / "node_modules/.bin/openapi-typescript", document_file, "-o", "client.ts", folder=folder)
    return folder


def compiles(project: Path, name: str, text: str) -> None:
    (project / name).write_text(text)
    run(project / "node_modules/.bin/tsc", *OPTIONS, name, folder=project)


def written(answers: Iterable[Answer]) -> str:
    """A module that says of each answer that it is of its type; it does not compile where one is not."""
    lines = ['import type { operations } from "./client.js";']
    for number, answer in enumerate(each for each in answers if each.media_type in JSON):
        content = f'operations["{answer.operation}"]["responses"][{answer.status}]["content"]["{answer.media_type}"]'
        body: Any = json.loads(answer.content)
        lines.append(f"export const answer{number}: {content} = {json.dumps(body)};")
    return "\n".join(lines)


def test_every_answer_is_of_the_type_that_the_client_expects(project: Path, answers: list[Answer]) -> None:
    compiles(project, "answers.ts", written(answers))


def test_an_answer_of_another_type_would_be_seen(project: Path) -> None:
    wrong = Answer("livez", 200, "application/json", b'{"status": "fine"}')
    with pytest.raises(AssertionError, match="not assignable to type '\"ok\"'"):
        compiles(project, "wrong.ts", written([wrong]))


def test_what_a_user_would_write_compiles(project: Path) -> None:
    compiles(project, "use.ts", USE)
