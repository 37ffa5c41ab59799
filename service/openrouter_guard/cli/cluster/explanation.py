"""Says in sentences why a workload runs or not, and when it comes back; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from openrouter_operator.workloads.workload import OPT, Pause, Workload

from .resources import acts

__all__ = ["explained"]


def explained(
    workload: Workload, resource: Mapping[str, Any] | None, problems: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """Yield the sentences: the cause first, then when it comes back, then problems.

    Args:
        workload: The workload.
        resource: The resource that has paused it, or names it; None if there is none.
        problems: What the status of that resource says about it.
    """
    if workload.damage:
        yield f"{workload.damage}. Set the replicas by hand, and remove the annotation."
    elif workload.pause is not None:
        yield from _paused(workload, workload.pause, resource)
    elif workload.pods == 0:
        yield _at_zero(workload)
    else:
        yield _running(workload, resource)
    for problem in problems:
        yield f"{problem['reason']}: {problem['message']}."


def _paused(workload: Workload, pause: Pause, resource: Mapping[str, Any] | None) -> Iterator[str]:
    now = "is paused" if workload.pods == 0 else f"is paused, and has {workload.pods} pods at present"
    yield f"{workload} {now}: OpenRouterStatus {pause.owner} has paused it, and it had {workload.original_pods} pods."
    is_changed = not workload.is_as_we_set_it
    if is_changed:
        who = f" ({workload.changed_by})" if workload.changed_by else ""
        yield (
            f"Somebody else has changed it since{who}. The operator leaves such a change alone, unless "
            "onManualChange is Enforce."
        )
    if resource is None:
        yield (
            f"There is no OpenRouterStatus {pause.owner} any more: run openrouter-guard rescue "
            f"--namespace {workload.namespace}."
        )
    elif pause.is_orphaned:
        yield "Its resource was deleted with deletionPolicy Orphan, so it stays paused until you scale it."
    elif not is_changed:
        yield _comes_back(workload, resource)


def _comes_back(workload: Workload, resource: Mapping[str, Any]) -> str:
    breaker, progress, override = resource["breaker"], resource["progress"] or {}, resource["override"] or {}
    if resource["suspend"]:
        return (
            "The resource is suspended, so it stays as it is until you run openrouter-guard resume "
            f"{resource['name']} --namespace {workload.namespace}."
        )
    if override.get("action") == "ForceOpen":
        return f"An override by {override.get('by')} forces the breaker open until {override.get('until')}."
    match breaker.get("state"):
        case "open":
            return f"It comes back after the breaker has closed; trial calls may go from {breaker.get('retryAt')} on."
        case "half_open":
            return "It comes back after a trial call of another worker, or its canary, or health checks succeed."
        case "closed" if progress.get("nextAt"):
            return (
                f"The breaker is closed, and the next step is due at {progress['nextAt']} ({progress.get('reason')})."
            )
        case "closed":
            return f"The breaker is closed, and the workloads come back now ({progress.get('reason', 'in steps')})."
        case _:
            return "The operator cannot read the state of the breaker, and leaves everything as it is for a while."


def _at_zero(workload: Workload) -> str:
    who = f"; {workload.changed_by} wrote that number last" if workload.changed_by else ""
    return f"{workload} is at 0, and OpenRouter Guard has not paused it{who}."


def _running(workload: Workload, resource: Mapping[str, Any] | None) -> str:
    if workload.opt == "false":
        return f'{workload} runs: its annotation {OPT} is "false", so it is never paused.'
    if resource is None:
        return (
            f"{workload} runs: no OpenRouterStatus of namespace {workload.namespace} names it, so it is never paused."
        )
    if workload.released:
        return f"{workload} runs: it was changed or brought back during this outage, and is left alone until its end."
    if acts(resource) != "yes":
        return (
            f"{workload} runs: OpenRouterStatus {resource['name']} names it and does not act ({acts(resource)[4:]})."
        )
    return f"{workload} runs: OpenRouterStatus {resource['name']} names it, and would pause it in an outage."
