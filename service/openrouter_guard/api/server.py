"""Runs the health service until a signal."""

from __future__ import annotations

import prometheus_client
import uvicorn

from openrouter_guard.settings import Settings

from .app import create_app

__all__ = ["serve"]

STOP_S = 5
"""How long requests may take to end after the signal to stop."""


def serve(settings: Settings, host: str, port: int) -> None:
    """Serve on ``host:port``; returns after SIGINT or SIGTERM.

    Raises:
        ConfigurationError: If a setting cannot be used.
    """
    # A second series for each counter, which nobody charts.
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    uvicorn.run(
        create_app(settings),
        host=host,
        port=port,
        lifespan="on",
        ws="none",
        # Logging is set up by whoever starts us; a line per request is what /metrics is for.
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_S,
    )
