"""Checks a health service by its probes and its status page."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from openrouter_guard.version import package_version

from .checks import Check, failed, ok, skipped, warning

__all__ = ["checked_service"]

AREA = "service"
TIMEOUT_S = 5.0
_PATHS = {"live": "/livez", "ready": "/readyz", "page": "/"}


async def checked_service(url: str, token: str = "") -> list[Check]:
    """Return the checks of the service at *url*; without one, a skipped check."""
    if not url:
        return [skipped(AREA, "reachable", "not asked", "name it with --url http://127.0.0.1:8080")]
    return [await asyncio.to_thread(_answers, name, url.rstrip("/") + path, token) for name, path in _PATHS.items()]


def _answers(name: str, url: str, token: str) -> Check:
    if not url.startswith(("http://", "https://")):
        return failed(AREA, name, f"{url} is not an address", "write --url http://host:port")
    headers: Mapping[str, str] = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310  checked above
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            return _read(name, url, answer.read(65_536))
    except urllib.error.HTTPError as error:
        with error:
            return _refused(name, url, error.code)
    except (OSError, ValueError) as error:
        return failed(AREA, name, f"{url} does not answer: {error}", "start the service, or correct --url")


def _read(name: str, url: str, body: bytes) -> Check:
    version = _version(body) if name == "live" else ""
    if version and version != package_version():
        return warning(AREA, name, f"{url}, version {version}", f"this is version {package_version()}")
    return ok(AREA, name, url)


def _version(body: bytes) -> str:
    try:
        found: Any = json.loads(body)
    except ValueError:
        return ""
    return str(found.get("version", "")) if isinstance(found, dict) else ""


def _refused(name: str, url: str, code: int) -> Check:
    if code == 401:
        return skipped(AREA, name, f"{url} wants a token", "set OPENROUTER_GUARD_READ_TOKEN")
    return failed(AREA, name, f"{url} answers {code}", "look at the log of the service")
