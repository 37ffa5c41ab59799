"""docs/metrics.md, made from the registries of both parts: ``python -m tests.alerts.reference`` writes it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from unittest.mock import MagicMock

from kubernetes.aio.client import Configuration
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from openrouter_guard.api.stats.figures import Figures
from openrouter_guard.api.telemetry import registry as service
from openrouter_guard.api.telemetry.shared_state import ScopeSource
from openrouter_guard.replica import Snapshot
from openrouter_guard.rules.latency import Latency
from openrouter_guard.settings import Settings
from openrouter_operator.controller.handlers import Operator
from openrouter_operator.kubernetes.client import Cluster
from openrouter_operator.kubernetes.lease import Lease
from openrouter_operator.serving import metrics as operator
from openrouter_operator.shared_state.feed import Feeds
from openrouter_operator.workloads.inventory import Inventory

__all__ = ["PAGE", "current", "names"]

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
FIGURES = Figures((0, 0), Latency(), {}, workers={("0.1.0", "0123abcd"): 1})
_OURS = "openrouter_guard_"
_TEXT = """\
# Metrics

All metrics of the two parts for Prometheus. `python -m tests.alerts.reference` writes this page from the running
code. [Alerts and runbooks](runbooks/README.md) use them.

Both parts also report the usual `process_*` and `python_gc_*`, and the operator `python_info`.

## The health service

`GET /metrics` of each replica.

- **Metrics of the shared state** have the label `scope`. All replicas report the same: use `max by (scope)`, not
  `sum`.
- **A value that was never known** is `NaN`. While Redis cannot be read, gauges are `NaN` too, and counters are left
  out. The state of the breaker and of OpenRouter, the balance, the override, and the time for which calls are
  blocked keep their last known values, beside `openrouter_guard_store_up` 0.
- **Counters of the fleet's calls** start again at midnight UTC. `rate()` and `increase()` take that as a restart.
- **Counters of a process** are its own: checks, answers, requests, webhook events, and the transitions that it has
  seen.

{service}
## The operator

`GET /metrics` on `OPENROUTER_GUARD_OPERATOR_PORT` (8081). The label `namespace` is that of the workloads. If you
scrape by a ServiceMonitor without `honorLabels`, Prometheus calls it `exported_namespace`.

{operator}"""


def current() -> str:
    """Return the page as it should be."""
    found, of_operator = asyncio.run(_registries())
    return _TEXT.format(service=_table(found), operator=_table(of_operator))


@cache
def names() -> set[str]:
    """Return the name of each series of ours, as Prometheus has it."""
    return {name for registry in asyncio.run(_registries()) for name, _, _ in _series(registry)}


async def _registries() -> tuple[CollectorRegistry, CollectorRegistry]:
    telemetry = service.Telemetry()
    settings = Settings("redis://127.0.0.1:1")
    telemetry.of(ScopeSource(settings, lambda: Snapshot(None, 0.0), lambda: FIGURES))
    async with Cluster(Configuration()) as cluster:
        feeds = Feeds(settings, "reference", lambda _scope: None)
        parts = Operator(cluster, Inventory(), feeds)
        told = operator.Telemetry(parts, cluster, MagicMock(spec=Lease, is_held=True))
    return telemetry._registry, told._registry


def _table(registry: CollectorRegistry) -> str:
    rows = [f"| `{name}` | {kind} | {about} |\n" for name, kind, about in sorted(_series(registry))]
    return "| metric | type | meaning |\n| --- | --- | --- |\n" + "".join(rows)


def _series(registry: CollectorRegistry) -> Iterator[tuple[str, str, str]]:
    """Each metric of ours: its name with its labels, its type, and its description."""
    for collector in registry._collector_to_names:
        for metric in collector.collect():
            if metric.name.startswith(_OURS):
                labels = getattr(collector, "_labelnames", None) or _labels(metric)
                suffix = {"counter": "_total", "info": "_info"}.get(metric.type, "")
                name = metric.name + suffix + (f"{{{','.join(labels)}}}" if labels else "")
                yield name, metric.type, metric.documentation


def _labels(metric: Metric) -> tuple[str, ...]:
    found = tuple(getattr(metric, "_labelnames", ()))
    return found or tuple(
        dict.fromkeys(label for sample in metric.samples for label in sample.labels if label != "le")
    )


if __name__ == "__main__":
    PAGE.write_text(current())
