"""Notifies another system of each change of the breaker.

One POST for the whole fleet, retried, without delaying anything else.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx

from openrouter_guard.errors import ConfigurationError, StoreError
from openrouter_guard.replica import Snapshot
from openrouter_guard.rules.codec import iso
from openrouter_guard.rules.shared_state import SharedState, Transition
from openrouter_guard.settings import Settings, WebhookFormat
from openrouter_guard.store import Store
from openrouter_guard.upstream import Transport, without_request_lines

__all__ = ["Webhook", "alarm_event", "payload", "transition_event"]

logger = logging.getLogger(__name__)

WAITING = 100
"""Events that may wait; the oldest are dropped."""
TRIES = 6
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
TIMEOUT_S = 5.0
_CLAIM = "webhook_epoch"
_GIVE_UP_AT = range(400, 500)
_TRY_AGAIN = frozenset({408, 425, 429})

Event = Mapping[str, Any]


class Webhook:
    """Sends the events of one scope; ``count`` gets whether an event was sent, or dropped.

    Raises:
        ConfigurationError: On creation, if the address is invalid. The message does not contain it.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        view: Callable[[], Snapshot],
        transport: Transport | None = None,
        count: Callable[[bool], None] = lambda _is_sent: None,
    ) -> None:
        try:
            self._url = httpx.URL(settings.webhook_url)
        except httpx.InvalidURL:
            raise ConfigurationError("OPENROUTER_GUARD_WEBHOOK_URL is not an address: write https://…") from None
        without_request_lines()
        self._format = settings.webhook_format
        self._scope = settings.scope
        self._store = store
        self._view = view
        self._count = count
        self._known_epoch: int | None = None
        self._waiting: deque[Event] = deque(maxlen=WAITING)
        self._wake = asyncio.Event()
        self._client = httpx.AsyncClient(transport=transport, timeout=TIMEOUT_S, follow_redirects=False)

    async def close(self) -> None:
        await self._client.aclose()

    async def look(self) -> None:
        """Take the changes since the last look, unless another replica has taken them."""
        record = self._view().record
        if record is None:
            return
        try:
            for change in self._new(record):
                if await self._store.claim(_CLAIM, change.epoch):
                    self.put(transition_event(change, self._scope))
                self._known_epoch = change.epoch
        except StoreError:
            return  # the cache has logged it; the next look tries again
        self._known_epoch = max(record.epoch, self._known_epoch or 0)

    def _new(self, record: SharedState) -> Sequence[Transition]:
        """None at first: earlier changes were sent by others, or are outdated."""
        known = record.epoch if self._known_epoch is None else self._known_epoch
        return [change for change in record.transitions if change.epoch > known]

    def put(self, event: Event) -> None:
        if len(self._waiting) == WAITING:
            logger.warning("the webhook accepts nothing, so the oldest event is dropped")
            self._count(False)
        self._waiting.append(event)
        self._wake.set()

    async def send(self) -> None:
        """Wait for an event and send it; after some tries drop it and log that."""
        while not self._waiting:
            self._wake.clear()
            await self._wake.wait()
        event = self._waiting.popleft()
        for tried in range(TRIES):
            wait_s = min(FIRST_WAIT_S * 2**tried, LONGEST_WAIT_S)
            why, may_try_again = await self._tried(event)
            if not why:
                self._count(True)
                return
            if not may_try_again or tried == TRIES - 1:
                break
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311  jitter, not a secret
        self._count(False)
        logger.warning("the webhook did not accept an event, which is dropped: %s", why)

    async def _tried(self, event: Event) -> tuple[str, bool]:
        """Return the reason of the failure, empty on success, and whether to retry. Never contains the address."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await self._client.post(self._url, json=payload(event, self._format))
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return type(error).__name__, True
        code = answer.status_code
        if code < 300:
            return "", False
        return f"HTTP {code}", code in _TRY_AGAIN or (code >= 300 and code not in _GIVE_UP_AT)


def transition_event(change: Transition, scope: str) -> Event:
    before, after = change.before.value, change.after.value
    return {
        "event": "transition",
        "scope": scope,
        "from": before,
        "to": after,
        "reason": change.reason,
        "by": change.by,
        "at": iso(change.at),
        "epoch": change.epoch,
        "text": f"OpenRouter Guard ({scope}): {_WORDS[after]} (breaker {before} → {after}: {change.reason})",
    }


def alarm_event(entry: Mapping[str, str], scope: str) -> Event:
    """Create the event from an alert's entry in the history."""
    percent = 100 * float(entry["error_rate"])
    return {
        "event": "alarm",
        "scope": scope,
        **entry,
        "text": f"OpenRouter Guard ({scope}): {entry['reason']}, {percent:.1f} % of the calls of five minutes failed",
    }


def payload(event: Event, form: WebhookFormat) -> Event:
    """Return the body to send: the event, or the format of Slack and compatible systems."""
    return {"text": event["text"]} if form == "slack" else event


_WORDS = {
    "open": "calls to OpenRouter are paused",
    "half_open": "trial calls may go to OpenRouter",
    "closed": "calls to OpenRouter may go again",
}
