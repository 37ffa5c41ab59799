"""What the OpenAPI document says beyond what the routes do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .auth import OPEN_PATHS
from .problems import documented
from .schemas import STATUS_EXAMPLES

__all__ = ["completed"]

_SCHEMES = {
    "writeToken": {"type": "http", "scheme": "bearer", "description": "OPENROUTER_GUARD_WRITE_TOKEN of the service"},
    "readToken": {"type": "http", "scheme": "bearer", "description": "OPENROUTER_GUARD_READ_TOKEN of the service"},
}


def completed(document: dict[str, Any], *, needs_token: bool) -> dict[str, Any]:
    """The document with what a client must send; done twice, it is the same."""
    # FastAPI drops what is null from examples, and with it required fields.
    document["components"]["schemas"]["StatusAnswer"]["examples"] = STATUS_EXAMPLES
    document["components"]["securitySchemes"] = _SCHEMES if needs_token else {"writeToken": _SCHEMES["writeToken"]}
    if needs_token:
        for operation in _readable(document):
            operation.setdefault("security", [{"readToken": []}])
            operation["responses"].update({str(code): said for code, said in documented(401).items()})
    return document


def _readable(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path, operations in document["paths"].items():
        if path not in OPEN_PATHS:
            yield from operations.values()
