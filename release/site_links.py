"""A hook of mkdocs: links to files that are no pages, such as code, lead to the repository, if its address is set."""

from __future__ import annotations

import posixpath
import re
from typing import Any

__all__ = ["on_page_markdown"]

_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Return the page's text with such links."""
    folder = posixpath.dirname(page.file.src_uri)

    def linked(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, match[2]))
        if files.get_file_from_path(path) is not None:
            return match[0]
        repository = (config["repo_url"] or "").rstrip("/")
        return f"[{match[1]}]({repository}/blob/main/{path}{match[3] or ''})" if repository else match[1]

    return _LINK.sub(linked, markdown)
