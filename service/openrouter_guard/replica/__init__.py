"""A process' own copy of the shared state: pushed and polled, so that a request costs no round trip to Redis."""

from .replica import Replica, Snapshot

__all__ = ["Replica", "Snapshot"]
