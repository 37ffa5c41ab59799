"""The HTTP interface by topic; each module translates, and nothing else.

status   what is known of OpenRouter, and the counters by day
record   what happened, who reports, and single models
events   changes as they happen
gate     whether calls may go, for machines and as a picture
reports  what workers in other languages say of their calls
permits  leave for single calls of theirs
write    what a person decides
process  this process alone
page     the status page for people
"""

from . import activity, events, gate, override, page, permits, process, reports, status

__all__ = ["ROUTERS"]

ROUTERS = (
    *(status.router, gate.router, activity.router, events.router, reports.router, permits.router, override.router),
    *(process.router, page.router),
)
"""Side by side, and what is asked for most first: each router around another one costs time for every request."""
