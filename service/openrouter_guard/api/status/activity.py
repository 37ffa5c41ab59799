"""Builds the answers about history, workers and models from stored data, as pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from openrouter_guard.api.schemas.activity import (
    ClusterAnswer,
    HistoryAnswer,
    ModelsAnswer,
    ModelState,
    PausedAnswer,
    PausedDetails,
    TransitionAnswer,
    WorkerAnswer,
    WorkerError,
    WorkersAnswer,
)
from openrouter_guard.replica import Snapshot
from openrouter_guard.rules.codec import iso, parse_iso
from openrouter_guard.rules.models import Model, cooling
from openrouter_guard.rules.units import DAY_S
from openrouter_guard.settings import Settings
from openrouter_guard.store.presence import WORKER_LIFE_S, WORKER_LIVE_S, Presence

__all__ = ["history", "models", "paused", "workers"]


def history(entries: Sequence[Mapping[str, str]], *, limit: int, days: int, now: float, scope: str) -> HistoryAnswer:
    """Return the entries of the last *days*; if there are more than *limit*, one more was read."""
    begins_at = now - days * DAY_S
    recent = [entry for entry in entries if parse_iso(entry.get("at")) >= begins_at]
    page = recent[:limit]
    next_before = f"{page[-1]['epoch']}-{page[-1]['seq']}" if len(recent) > limit else None
    kept = [found for entry in page if (found := _transition(entry))]
    return HistoryAnswer(transitions=kept, next_before=next_before, scope=scope)


def _transition(entry: Mapping[str, str]) -> TransitionAnswer | None:
    """Return None for an unreadable entry: it must not hide the others."""
    try:
        return TransitionAnswer.model_validate(entry)
    except ValueError:
        return None


def workers(
    beats: Mapping[str, Presence], errors: Iterable[Presence], *, limit: int, now: float, scope: str
) -> WorkersAnswer:
    """Build the list from heartbeats and the error log, newest first.

    A worker with only an error belongs to an earlier system.
    """
    last_errors = _last_errors(errors)
    names = beats.keys() | last_errors.keys()
    listed = [_worker(name, beats.get(name, {}), last_errors.get(name), now) for name in names]
    known = sorted(
        (each for each in listed if parse_iso(each.last_seen) >= now - WORKER_LIFE_S),
        key=lambda each: (-parse_iso(each.last_seen), each.worker_id),
    )
    live = sum(each.live for each in known)
    return WorkersAnswer(workers=known[:limit], total=len(known), live=live, scope=scope)


def paused(clusters: Mapping[str, Presence], *, scope: str) -> PausedAnswer:
    """Return the reports of operators; everything but the time comes from them."""
    found = [
        ClusterAnswer(
            cluster=name,
            last_seen=iso(parse_iso(_text(about.get("last_seen")))) or None,
            details=_details(about),
        )
        for name, about in clusters.items()
    ]
    return PausedAnswer(clusters=found, scope=scope)


def _details(about: Presence) -> PausedDetails:
    """Return their data unchanged, except that our own fields are left out if their type is wrong."""
    told = {name: value for name, value in about.items() if name != "last_seen"}
    workloads = told.get("workloads")
    kinds = {"resource": str, "paused": int, "workloads": list}
    fit = {name for name, kind in kinds.items() if type(told.get(name)) is kind}
    if "workloads" in fit:
        told["workloads"] = [_text(each) for each in workloads or ()]
    return cast("PausedDetails", {name: told[name] for name in told if name in fit or name not in kinds})


def models(view: Snapshot, settings: Settings, *, limit: int) -> ModelsAnswer:
    ends = cooling(view.models, now=view.now, policy=settings.policy)
    names = sorted(view.models, key=lambda name: (name not in ends, -view.models[name].seen_at, name))
    return ModelsAnswer(
        models=[_model(name, view.models[name], ends.get(name)) for name in names[:limit]],
        total=len(names),
        cooling=len(ends),
        degraded=view.is_degraded,
        scope=settings.scope,
    )


def _model(name: str, model: Model, end: tuple[float, str] | None) -> ModelState:
    return ModelState(
        model=name,
        cooling=end is not None,
        reason=end[1] or "error" if end else None,
        retry_at=iso(end[0]) if end else None,
        failures=model.failures,
        last_failure=iso(model.failed_at) or None,
        last_call=iso(model.seen_at) or None,
    )


def _worker(name: str, about: Mapping[str, Any], error: WorkerError | None, now: float) -> WorkerAnswer:
    last_at = max(parse_iso(_text(about.get("last_seen"))), parse_iso(error.at if error else None))
    return WorkerAnswer(
        worker_id=name,
        version=_text(about.get("version")) or None,
        last_seen=iso(last_at) or None,
        live=now - last_at <= WORKER_LIVE_S,
        last_error=error,
    )


def _last_errors(errors: Iterable[Presence]) -> dict[str, WorkerError]:
    """Return the newest error of each worker; the input is newest first."""
    found: dict[str, WorkerError] = {}
    for row in errors:
        worker_id = _text(row.get("worker_id"))
        if worker_id and worker_id not in found:
            found[worker_id] = _error(row)
    return found


def _error(row: Mapping[str, Any]) -> WorkerError:
    code = row.get("status_code")
    return WorkerError(
        at=iso(parse_iso(_text(row.get("timestamp")))) or None,
        error_type=_text(row.get("error_type")) or "unknown_error",
        error_message=_text(row.get("error_message")),
        status_code=code if isinstance(code, int) else None,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
