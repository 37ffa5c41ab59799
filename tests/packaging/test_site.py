"""The documentation as a site: every page has a place in its menu."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DOORS = ["Overview", "Get started", "Operate", "Reference", "Explain"]


class _Loader(yaml.SafeLoader):
    """Reads mkdocs' own tag for a variable of the environment as its default."""


def _default(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> str:
    return str(loader.construct_sequence(node)[-1])


_Loader.add_constructor("!ENV", _default)
MENU: list[dict[str, Any]] = yaml.load((ROOT / "mkdocs.yml").read_text(), _Loader)["nav"]


def pages_in(menu: Any) -> Iterator[str]:
    if isinstance(menu, str):
        yield menu
        return
    for entry in menu if isinstance(menu, list) else menu.values():
        yield from pages_in(entry)


def test_the_menu_has_the_doors_of_the_readme() -> None:
    assert [name for door in MENU for name in door] == DOORS
    readme = (ROOT / "README.md").read_text()
    assert all(f"**{door}**" in readme for door in DOORS[1:])


def test_every_page_is_in_the_menu_and_each_once() -> None:
    listed = list(pages_in(MENU))
    assert len(listed) == len(set(listed))
    own = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}
    # The page of the runbooks lists each of them; another test compares it.
    missing = {page for page in own - set(listed) if not page.startswith("docs/runbooks/OpenRouterGuard")}
    assert missing == set()
    assert [page for page in listed if not (ROOT / page).is_file()] == []
