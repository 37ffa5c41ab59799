"""A worker as a user would write it: it waits, calls, and on SIGTERM ends after its current call."""

import os
import signal
import sys
import threading
from collections.abc import Iterator

import httpx

from openrouter_guard import CallNotPermitted, Guard
from openrouter_guard.httpx import GuardedTransport

told_to_end = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: told_to_end.set())
guard = Guard.from_env()
key = {"authorization": "Bearer sk-or-v1-worker"}
url = os.environ["OPENROUTER_BASE_URL"]
client = httpx.Client(transport=GuardedTransport(guard), base_url=url, headers=key, timeout=30)
body = {"model": "openai/gpt-4o", "messages": [{"role": "user", "content": "Why?"}]}


def eat() -> Iterator[bytes]:
    """A body that is never all sent."""
    eaten = []
    while True:
        eaten.append(b"{" * 2**20)
        yield eaten[-1][:1]


if "--eat" in sys.argv:
    client.post("chat/completions", content=eat())
while not told_to_end.is_set():
    if guard.wait(timeout_s=1):
        try:
            print(client.post("chat/completions", json=body).status_code, flush=True)
        except CallNotPermitted:
            print("not permitted", flush=True)
    if "--once" in sys.argv:
        break
    told_to_end.wait(0.5)
guard.close()
print("ended", flush=True)
