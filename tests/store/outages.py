"""A fleet in an outage, as Redis shows it: a worker, a model that cools down, and paused workloads."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

from openrouter_guard.rules.codec import iso
from openrouter_guard.rules.models import Run
from openrouter_guard.store import Batch, Store

from .batches import settle

__all__ = ["outage", "reported_outage"]


async def outage(store: Store) -> None:
    """Let it happen; the breaker is open for six seconds, then half-open."""
    await reported_outage(store, {"failed_calls": 5})
    await store.change(settle)


async def reported_outage(store: Store, counters: Mapping[str, int]) -> None:
    """Report what opens the breaker, once somebody settles it."""
    now = iso(time.time())
    await store.heartbeat("worker-a", {"version": "0.1.0", "last_seen": now})
    paused = {"resource": "team-a/default", "workloads": ["Deployment/chat"], "paused": 1}
    await store.tell_paused("production", {"last_seen": now, **paused})
    error = {"timestamp": now, "worker_id": "worker-a", "error_type": "service_unavailable"}
    details = json.dumps(error | {"error_message": "HTTP 503", "status_code": 503})
    fields = {"state": "service_unavailable", "message": "Service unavailable", "error_details": details}
    run = Run(failures=5, until=time.time() + 60, reason="rate_limited")
    batch = Batch(0, "worker-a", 1, [("F", 5)], fields, dict(counters), [details], {"openai/gpt-4o": run})
    await store.count(batch, at=time.time())
