"""The health service: what the fleet knows of OpenRouter, over HTTP.

serving     what a request is answered with, as pure functions
status      from what is known to the answer; schemas: its form
refresher   health checks, one a minute for the whole fleet
counters    what waits to be added to the day's metrics
service     all of that together, without HTTP
prometheus  what is scraped
routes, problems, headers, app, server   HTTP
"""

from .app import create_app

__all__ = ["create_app"]
