"""The HTTP interface by topic; each module translates, and nothing else.

status   what is known of OpenRouter, and the counters by day
record   what happened, who reports, and single models
events   changes as they happen
gate     whether calls may go, for machines and as a picture
write    what changes the shared state
process  this process alone
page     the status page for people
"""

from . import events, gate, page, process, record, status, write

__all__ = ["ROUTERS"]

ROUTERS = (status.router, gate.router, record.router, events.router, write.router, process.router, page.router)
"""Side by side, and what is asked for most first: each router around another one costs time for every request."""
