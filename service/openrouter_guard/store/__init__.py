"""The shared state in Redis or Valkey; nothing outside this package imports redis."""

from .client_address import client_of, url_of
from .connection import Timeouts
from .store import Batch, Counted, Seen, Store

__all__ = ["Batch", "Counted", "Seen", "Store", "Timeouts", "client_of", "url_of"]
