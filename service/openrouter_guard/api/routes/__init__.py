"""The HTTP interface by topic; each module only translates.

status   the state of OpenRouter, and the counters by day
activity history, workers and single models
events   changes as they happen
gate     the gate for programs, and the badge
reports  results of workers in other languages
permits  permits for their trial calls
override overrides of the breaker
process  probes and metrics of this process
page     the status page for people
"""

from . import activity, events, gate, override, page, permits, process, reports, status

__all__ = ["ROUTERS"]

ROUTERS = (
    *(status.router, gate.router, activity.router, events.router, reports.router, permits.router, override.router),
    *(process.router, page.router),
)
"""Flat, with the most frequent first: each nested router would cost time for every request."""
