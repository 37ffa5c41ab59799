"""``openrouter-guard version``, and the overview without a command."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from openrouter_guard.address import parse_address
from openrouter_guard.cli.console.output import Answer
from openrouter_guard.cli.console.tables import Block, Facts, Text
from openrouter_guard.errors import ConfigurationError
from openrouter_guard.version import package_version

__all__ = ["blocks", "overview", "versions"]

LIBRARIES = ("redis", "fastapi", "uvicorn", "kopf", "kubernetes", "pydantic", "rich")
OVERVIEW = """\
OpenRouter Guard {version}: one shared circuit breaker for every worker that calls OpenRouter

  redis       {redis}
  kubernetes  {kubeconfig}

See what happens
  status      the state of each scope, since when, why, and what is paused
  history     the transitions of the breaker
  workers     the workers that report
  models      the models that cool down or fail
  config      all settings, with their sources
  why         why a workload is at zero, or is not, and when it comes back
  plan        what a resource would pause if the breaker opened now
  doctor      check Redis, the workers, the key, the cluster and the service, and say what to do

Act
  override    force the breaker open or closed, or switch it off, for a limited time
  drill       rehearse an outage, and time the workloads
  suspend     let a resource leave all workloads as they are; resume ends that

Run
  up          everything on embedded defaults, to try it out
  serve       the health service
  operate     the Kubernetes operator
  rescue      restore everything that an operator left paused

openrouter-guard COMMAND --help shows the options; docs/command-line.md shows examples."""


def versions() -> dict[str, Any]:
    """Return the version of this package, of Python, and of the libraries that are installed."""
    return {
        "version": package_version(),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def blocks(answer: Answer) -> Sequence[Block]:
    libraries = {name: found or "not installed" for name, found in answer["libraries"].items()}
    return [Text(f"openrouter-guard {answer['version']}"), Facts({"python": answer["python"], **libraries})]


def overview(environ: Mapping[str, str]) -> str:
    return OVERVIEW.format(
        version=package_version(),
        redis=_redis(environ),
        kubeconfig=environ.get("KUBECONFIG") or "~/.kube/config, if there is one (KUBECONFIG is not set)",
    )


def _redis(environ: Mapping[str, str]) -> str:
    url = environ.get("REDIS_URL", "").strip()
    try:
        return str(parse_address(url)) if url else "REDIS_URL is not set"
    except ConfigurationError as error:
        return str(error)
