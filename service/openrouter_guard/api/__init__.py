"""The health service: the fleet's view of OpenRouter, over HTTP.

server, app, openapi  the process, the ASGI app, its document
routes, page          the HTTP interface and the status page
status_fast_path      the status request, answered from memory
scope                 one scope: its service, events, reports, permits and webhook
http                  connections and their limits, tokens, problems, conditional requests
telemetry             metrics for Prometheus
status                freshness of the status, health checks, the gate
stats                 counters, and statistics from them
schemas               the bodies of requests and answers
"""

from .app import create_app

__all__ = ["create_app"]
