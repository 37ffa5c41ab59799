"""The steps of the demo, in order, and the conditions that must hold after each."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TypeAlias

from .stage import RESET_S, Stage
from .telling import chapter, quote, say, timed
from .watch import watching

__all__ = ["tell"]

Replicas: TypeAlias = dict[str, int]
"""Of each Deployment, by its name."""

_ROOT = Path(__file__).parents[2]
_CRDS = _ROOT / "crds"
_EXAMPLES = _ROOT / "docs" / "examples"
_CRD = "crd/openrouterstatuses.openrouter-guard.io"
_RESOURCE = "openrouterstatus/default"
_WORKERS = "--selector=calls=openrouter"
_SLOW_S = 4.0
"""Long enough to look at a half-open breaker: its trial calls take this long."""


def tell(stage: Stage) -> None:
    """Let an outage come and go.

    Raises:
        DemoFailed: If the Deployments do not go to 0, or do not come back.
    """
    _set_up(stage)
    originals = _before(stage)
    with watching():
        _outage(stage)
        _half_open(stage)
        _recovery(stage, originals)
    _after(stage, originals)


# -- chapters -------------------------------------------------------------------------------------------------------


def _set_up(stage: Stage) -> None:
    timed("Valkey, a simulated OpenRouter, three simulated workers that call it, the health service")
    stage.start_state_and_workers()
    timed("The CRD, three Deployments of workers, an OpenRouterStatus that pauses them, the operator")
    stage.control_plane.apply(_CRDS)
    stage.await_cluster("the CRD is established", _CRD, "--for=condition=Established")
    for name in ("workers.yaml", "openrouterstatus.yaml"):
        stage.control_plane.apply(_EXAMPLES / name)
    stage.start_operator()
    stage.await_cluster("the OpenRouterStatus is ready", _RESOURCE, "--for=condition=Ready", seconds=30.0)


def _before(stage: Stage) -> Replicas:
    """Show it, and return the original replicas."""
    originals = {name: wanted for name, (wanted, _) in _deployments(stage).items()}
    _await_pods(stage, originals)
    _show(stage, "Before", "Calls go through. The pods stay pending, for this cluster has no node to run them.")
    return originals


def _outage(stage: Stage) -> None:
    chapter(
        "The outage begins: OpenRouter answers 503",
        "Five failures in a row, whichever workers they come from, open the breaker for the whole fleet, and the "
        "operator scales the Deployments to 0. From here on, kubectl get --watch:",
    )
    begun_s = time.monotonic()
    stage.simulate("outage")
    stage.await_cluster("every Deployment is at 0", "deployment", _WORKERS, "--for=jsonpath={.spec.replicas}=0")
    took_s = time.monotonic() - begun_s
    stage.await_cluster("every pod is gone", "pod", _WORKERS, "--for=delete")
    timed(f"All Deployments were at 0 within {took_s:.1f} s, and their pods are gone")
    _show(stage, "Paused", "Nothing calls OpenRouter now. Every worker is refused at once, without a call.")


def _half_open(stage: Stage) -> None:
    chapter(
        "The outage ends: OpenRouter is back, but slow",
        f"Nobody tells the breaker. Some {RESET_S} s after it opened it lets two trial calls through, and one pod of "
        f"one Deployment comes back. An answer takes {_SLOW_S:g} s, so that there is time to look.",
    )
    stage.simulate("slow", delay_s=_SLOW_S)
    stage.await_cluster(
        "the breaker is half-open",
        _RESOURCE,
        "--for=jsonpath={.status.breaker.state}=half_open",
    )
    _show(stage, "Half-open", "The trial calls are under way, and one Deployment has one pod.")


def _recovery(stage: Stage, originals: Replicas) -> None:
    stage.await_cluster("the breaker is closed", _RESOURCE, "--for=jsonpath={.status.breaker.state}=closed")
    stage.simulate("healthy")
    _show(stage, "Resuming", "A trial call succeeded: the breaker is closed. The pods come back in steps of 25 %.")
    say("")
    _await_pods(stage, originals)
    stage.await_cluster("nothing is paused", _RESOURCE, "--for=condition=Paused=False")


def _after(stage: Stage, originals: Replicas) -> None:
    _show(stage, "After", "Every Deployment has its original replicas.")
    stage.expect("the events tell of the end", lambda: "Resumed" in _events(stage))
    chapter(
        "What remains: the events", "One for each transition.", quote(f"kubectl describe {_RESOURCE}", _events(stage))
    )
    found = ", ".join(f"{name} {count}" for name, count in originals.items())
    chapter("It worked", f"The Deployments went to 0 and came back to their original replicas: {found}.")
    timed("Ending everything that was started")


# -- pieces ---------------------------------------------------------------------------------------------------------


def _show(stage: Stage, title: str, why: str) -> None:
    """The tables at this moment, and what the health service says."""
    tables = [quote(f"kubectl get {kind}", stage.control_plane.kubectl("get", kind)) for kind in _KINDS]
    said = stage.health()
    service = f"The health service says: status {said['status']}, circuit breaker {said['circuit_breaker']['state']}"
    chapter(title, why, *tables, service)


_KINDS = ("openrouterstatus", "deployments")


def _await_pods(stage: Stage, originals: Replicas) -> None:
    """Let every Deployment have its original replicas, and as many pods."""
    wanted = {name: (count, count) for name, count in originals.items()}
    stage.expect(f"the Deployments have their replicas: {originals}", lambda: _deployments(stage) == wanted)


def _deployments(stage: Stage) -> dict[str, tuple[int, int]]:
    """How many pods each Deployment of workers wants, and how many it has."""
    listed = stage.control_plane.get("deployments", _WORKERS)["items"]
    return {
        item["metadata"]["name"]: (item["spec"]["replicas"], item["status"].get("replicas", 0)) for item in listed
    }


def _events(stage: Stage) -> str:
    description = stage.control_plane.kubectl("describe", _RESOURCE)
    return description[description.index("Events:") :]
