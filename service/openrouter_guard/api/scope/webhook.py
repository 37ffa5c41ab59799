"""Notifies another system of each change of the breaker.

One POST for the whole fleet, retried, without delaying anything else. The replica that has an event's lease sends it.
If that replica goes away, another one does.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import secrets
import time
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from hmac import digest

from openrouter_guard.api.status import activity
from openrouter_guard.errors import ConfigurationError, StoreError
from openrouter_guard.replica import Snapshot
from openrouter_guard.rules.breaker import BreakerState, Open
from openrouter_guard.rules.codec import parse_iso
from openrouter_guard.rules.redaction import remember
from openrouter_guard.rules.shared_state import SharedState, Transition
from openrouter_guard.settings import Settings
from openrouter_guard.store import Store
from openrouter_guard.tracing import span
from openrouter_guard.upstream import Transport, http_client, url_of
from openrouter_guard.version import package_version
from openrouter_guard.webhook_settings import secret_keys, secrets_of_file

from .webhook_events import Event, alarm_event, half_open_event, payload, transition_event

__all__ = ["Webhook", "signed_headers"]

logger = logging.getLogger(__name__)

WAITING = 100
"""Events that may wait; the oldest are dropped."""
TRIES = 6
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
TIMEOUT_S = 5.0
LEASE_S = 30.0
"""Another replica sends an event whose sender has gone away this long ago."""
_TRANSITIONS, _HALF_OPEN, _ALARMS = "webhook_epoch", "webhook_half_open", "webhook_alarm"
_GIVE_UP_AT = range(400, 500)
_TRY_AGAIN = frozenset({408, 425, 429})


@dataclass(slots=True, eq=False)
class _Offer:
    """An event that one replica sends.

    Attributes:
        name: Kind of the number.
        number: The number to lease.
        is_new: False for an event that was there before this process: only taken over.
        at: When to ask for the lease, or to renew it; monotonic seconds.
        is_lost: Whether another replica has taken the event over.
    """

    name: str
    number: int
    event: Event
    is_new: bool = True
    at: float = 0.0
    is_lost: bool = False

    @property
    def id(self) -> str:
        """Identifies the event to its receiver, whichever replica sends it."""
        return f"{self.event['scope']}-{self.name.removeprefix('webhook_')}-{self.number}"


class Webhook:
    """Sends the events of one scope.

    ``stored`` returns the state without uncommitted transitions: another process may commit them under another epoch.
    ``count`` gets whether an event was sent, or dropped.

    Raises:
        ConfigurationError: On creation, if the address or a secret is invalid. The message contains neither.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        stored: Callable[[], Snapshot],
        transport: Transport | None = None,
        count: Callable[[bool], None] = lambda _is_sent: None,
    ) -> None:
        self._url = url_of(
            settings.webhook_url, "OPENROUTER_GUARD_WEBHOOK_URL is not an address: write https://host/path"
        )
        self._settings = settings
        self._keys = _keys(settings)
        self._scope = settings.scope
        self._store = store
        self._stored = stored
        self._count = count
        self._caller = secrets.token_hex(8)
        self._known_epoch: int | None = None
        self._half_open_epoch: int | None = None
        self._offers: deque[_Offer] = deque(maxlen=WAITING)
        self._waiting: deque[_Offer] = deque(maxlen=WAITING)
        self._sending: _Offer | None = None
        self._ended: deque[_Offer] = deque(maxlen=WAITING)
        self._wake = asyncio.Event()
        agent = {"User-Agent": f"openrouter-guard/{package_version()}"}
        self._client = http_client(transport=transport, timeout=TIMEOUT_S, headers=agent)

    async def close(self) -> None:
        """Leave the events that were not sent to other replicas, at once."""
        with suppress(StoreError):
            for offer in self._held():
                await self._lease(offer, 0.0)
            await self._end()
        await self._client.aclose()

    # -- which events are ours ----------------------------------------------------------------------------------

    async def look(self) -> None:
        """Take the changes since the last look, unless another replica has taken them, and what others left."""
        view = self._stored()
        if view.record is not None:
            self._offers.extend(self._new(view.record, view.now))
        with suppress(StoreError):  # the cache has logged it; the next look tries again
            await self._end()
            await self._renew()
            await self._take()

    def alarm(self, entry: Mapping[str, str]) -> None:
        """Take an alert that any replica has put into the history."""
        number = int(1000 * parse_iso(entry["at"]))
        self._offers.append(_Offer(_ALARMS, number, alarm_event(entry, self._scope)))

    def _new(self, record: SharedState, now: float) -> Iterator[_Offer]:
        """Of the time before the first look, only events that somebody has not finished."""
        is_new, known = self._known_epoch is not None, self._known_epoch or 0
        for before, change in zip((None, *record.transitions), record.transitions, strict=False):
            if change.epoch > known:
                event = transition_event(change, record, self._scope, now)
                yield _Offer(*_number(before, change), event, is_new)
        self._known_epoch = max(record.epoch, known)
        opened = record.breaker
        is_by_time = isinstance(opened, Open) and record.phase(now) is BreakerState.HALF_OPEN
        if isinstance(opened, Open) and is_by_time and self._half_open_epoch != record.epoch:
            self._half_open_epoch = record.epoch
            yield _Offer(_HALF_OPEN, record.epoch, half_open_event(record, opened, self._scope), is_new)

    async def _take(self) -> None:
        for offer in [each for each in self._offers if each.at <= time.monotonic()]:
            left_s = await self._lease(offer, LEASE_S)
            if left_s:
                offer.at = time.monotonic() + left_s
                continue
            with suppress(ValueError):  # of too many offers, the oldest are gone
                self._offers.remove(offer)
            if left_s is not None:
                self._put(offer)

    async def _renew(self) -> None:
        for offer in self._held():
            if offer.at <= time.monotonic():
                offer.is_lost = bool(await self._lease(offer, LEASE_S))

    async def _lease(self, offer: _Offer, life_s: float) -> float | None:
        left_s = await self._store.lease(offer.name, offer.number, self._caller, life_s, is_new=offer.is_new)
        offer.at = time.monotonic() + LEASE_S / 3
        return left_s

    async def _end(self) -> None:
        while self._ended:
            offer = self._ended.popleft()
            try:
                await self._store.lease_done(offer.name, offer.number, self._caller)
            except StoreError:
                self._ended.append(offer)
                raise

    def _held(self) -> list[_Offer]:
        return [*([self._sending] if self._sending else []), *self._waiting]

    def _put(self, offer: _Offer) -> None:
        if len(self._waiting) == WAITING:
            logger.warning("the webhook accepts nothing, so the oldest event is dropped")
            self._count(False)
            self._ended.append(self._waiting.popleft())
        self._waiting.append(offer)
        self._wake.set()

    # -- sending ------------------------------------------------------------------------------------------------

    async def send(self) -> None:
        """Wait for an event and send it; after some tries drop it and log that."""
        while not self._waiting:
            self._wake.clear()
            await self._wake.wait()
        self._sending = offer = self._waiting.popleft()
        with span("webhook", scope=self._scope, event=offer.event["event"], id=offer.id) as told:
            why = await self._sent(offer)
            told.set(result=why or "sent")
        self._sending = None
        if offer.is_lost:
            return
        self._ended.append(offer)
        self._count(not why)
        if why:
            logger.warning("the webhook did not accept an event, which is dropped: %s", why)
        with suppress(StoreError):
            await self._end()

    async def _sent(self, offer: _Offer) -> str:
        """Return the reason of the failure; empty if the event was sent, or another replica sends it."""
        why = ""
        for tried in range(TRIES):
            if offer.is_lost:
                return ""
            wait_s = min(FIRST_WAIT_S * 2**tried, LONGEST_WAIT_S)
            why, may_try_again = await self._tried(offer)
            if not why or not may_try_again or tried == TRIES - 1:
                break
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311  jitter, not a secret
        return why

    async def _tried(self, offer: _Offer) -> tuple[str, bool]:
        """Return the reason of the failure, empty on success, and whether to retry. Never contains the address."""
        settings = self._settings
        said = payload(offer.event, settings.webhook_format, await self._paused(), settings.public_url)
        body = json.dumps(said, ensure_ascii=False).encode()
        headers = signed_headers(offer.id, int(time.time()), body, self._keys)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                # Its body is not read: it is nothing to us, and may have no end.
                async with self._client.stream("POST", self._url, content=body, headers=headers) as answer:
                    code = answer.status_code
        except Exception as error:  # noqa: BLE001  for odd names and ports, the network raises odd errors
            return type(error).__name__, True
        if code < 300:
            return "", False
        return f"HTTP {code}", code in _TRY_AGAIN or (code >= 300 and code not in _GIVE_UP_AT)

    async def _paused(self) -> list[Event] | None:
        """Return the paused workloads of each cluster; None if they are not known."""
        try:
            found = activity.paused(await self._store.paused(), scope=self._scope).clusters
        except StoreError:
            return None
        told = ({"cluster": each.cluster, **each.details} for each in found)
        return [each for each in told if each.get("workloads") and "paused" in each]


def signed_headers(identifier: str, at: int, body: bytes, keys: Sequence[bytes]) -> dict[str, str]:
    """Return the headers of a request; without keys it is not signed.

    Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    """
    headers = {"Content-Type": "application/json", "webhook-id": identifier, "webhook-timestamp": str(at)}
    content = f"{identifier}.{at}.".encode() + body
    signatures = [f"v1,{b64encode(digest(key, content, sha256)).decode()}" for key in keys]
    return headers | ({"webhook-signature": " ".join(signatures)} if signatures else {})


def _keys(settings: Settings) -> tuple[bytes, ...]:
    if not settings.webhook_secret_file:
        return secret_keys(settings.webhook_secret)
    if settings.webhook_secret:
        raise ConfigurationError(
            "OPENROUTER_GUARD_WEBHOOK_SECRET and OPENROUTER_GUARD_WEBHOOK_SECRET_FILE are both set: remove one"
        )
    text = secrets_of_file(settings.webhook_secret_file)
    remember(text.split())
    return secret_keys(text, "OPENROUTER_GUARD_WEBHOOK_SECRET_FILE")


def _number(before: Transition | None, change: Transition) -> tuple[str, int]:
    """Return the number of a change; a half-open breaker has the same one whether by time or by a trial call."""
    is_half_open = change.after is BreakerState.HALF_OPEN and change.before is BreakerState.OPEN
    return (_HALF_OPEN, before.epoch) if is_half_open and before else (_TRANSITIONS, change.epoch)
