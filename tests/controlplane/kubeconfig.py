"""Write kubeconfigs that need no other file."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path

__all__ = ["encode", "write_kubeconfig"]

_NAME = "openrouter-guard-tests"


def write_kubeconfig(path: Path, *, url: str, authority: bytes, credentials: Mapping[str, str]) -> Path:
    """Write to *path* how to reach *url* with *credentials*, the ``user`` part of a kubeconfig."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": _NAME, "cluster": {"server": url, "certificate-authority-data": encode(authority)}}],
        "users": [{"name": _NAME, "user": dict(credentials)}],
        "contexts": [{"name": _NAME, "context": {"cluster": _NAME, "user": _NAME}}],
        "current-context": _NAME,
    }
    # Helm warns of a kubeconfig that others can read.
    path.touch(mode=0o600)
    path.write_text(json.dumps(config, indent=2))
    return path


def encode(data: bytes) -> str:
    """Base64, as kubeconfigs want it."""
    return base64.b64encode(data).decode()
