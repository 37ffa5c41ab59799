"""README.md: its code runs. All links of all pages lead somewhere."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrouter_guard.store import Store
from tests.recipes.code import ROOT, code_in, environment
from tests.worker.guards import counters

TEXT = (ROOT / "README.md").read_text()
PAGES = sorted(
    path.relative_to(ROOT)
    for path in (
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob(".github/*.md"),
        *ROOT.glob("charts/*/*.md"),
    )
)
OPENROUTER = "https://openrouter.ai/api/v1"
GIVEN = """
import os
from collections import deque
from types import SimpleNamespace

messages = [{"role": "user", "content": "Why?"}]
os.environ["OPENAI_API_KEY"] = os.environ["OPENROUTER_API_KEY"]
queue = deque([SimpleNamespace(messages=messages)] * 3)
lost = []


def take_from_queue():
    return queue.popleft() if queue else exit()


put_back = queue.append


def give_up(task, error):
    lost.append(error)
    raise error
"""


@pytest.mark.slow
async def test_its_worker_makes_and_reports_every_call(
    redis_url: str, base_url: str, tmp_path: Path, store: Store
) -> None:
    loop, single = code_in(TEXT)
    # The loop of a worker has no end, so the single call comes first.
    head, tail = loop.split("while guard.wait()")
    script = "\n".join([GIVEN, head, single, f"while guard.wait(){tail}"]).replace(OPENROUTER, base_url)
    (tmp_path / "worker.py").write_text(script)
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "worker"],
        cwd=tmp_path,
        env=environment(redis_url, base_url),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    # The single call goes through the guarded client too, and so counts twice.
    assert (await counters(store))["successful_calls"] == 3 + 2


def test_it_is_a_page_and_not_a_book() -> None:
    assert TEXT.count("\n") <= 120


def links(page: Path) -> Iterator[tuple[str, str]]:
    """The file and the heading of each link to something of ours."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            file, _, heading = target.partition("#")
            yield file, heading


def anchors(text: str) -> set[str]:
    """What its headings are called in a link, as GitHub does it."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", each) for each in re.findall(r"^#+ (.+)$", text, re.MULTILINE))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_leads_somewhere(page: Path) -> None:
    for file, heading in links(page):
        target = (ROOT / page.parent / file) if file else ROOT / page
        assert target.exists(), f"{page}: {file}"
        if heading:
            assert heading in anchors(target.read_text()), f"{page}: {file}#{heading}"
