"""The health service: what the fleet knows of OpenRouter, over HTTP.

serving, gating      what a request is answered with, and whether calls may go, as pure functions
status, record       from what is known and what is stored to the answers; …schemas: their form
badge, page          the same for people
events, reports      changes as they happen; what workers in other languages report
refresher            health checks, one a minute for the whole fleet
recent, prepared     what was read or answered a moment ago
counters, figures    what waits to be added to the day's metrics; what the days come to
alarm, webhook       error rates worth an entry in the history; transitions told to other systems
service              all of that together, without HTTP
prometheus, gauges   what is scraped
routes, auth, answers, problems, headers, openapi, app, server   HTTP
"""

from .app import create_app

__all__ = ["create_app"]
