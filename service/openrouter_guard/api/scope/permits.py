"""The fleet's permits for workers in other languages: the same permits as the library's, held by an id.

Only this service can read an id, and ids cannot be guessed; Redis and the history hold a digest. A lost holder costs
one lease.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from openrouter_guard.api.schemas.fields import SEQUENCE_MAX
from openrouter_guard.api.schemas.permits import PermitBody, Settled
from openrouter_guard.api.schemas.reports import ReportBody, ResultBody
from openrouter_guard.api.status.gate import Gate, gate, ramp
from openrouter_guard.errors import CallNotPermitted, StoreContended
from openrouter_guard.replica import Replica, Snapshot
from openrouter_guard.rules import limits, trial_calls
from openrouter_guard.rules.models import Notes
from openrouter_guard.rules.parsing import json_of
from openrouter_guard.rules.redaction import redact
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.rules.signals import NEUTRAL, Effect, Signal

from .reports import Reports

__all__ = ["Granted", "PermitGone", "Permits"]

NO_PERMIT_RETRY_S = 1.0
"""Another worker's trial call may end at any moment."""
_SECRET_BYTES = 18
_DIGEST_BYTES = 12


class PermitGone(Exception):
    """The id was not issued by this service, its lease has expired, or the breaker has changed since."""


@dataclass(frozen=True, slots=True)
class Granted:
    """The answer to a request for a permit.

    Attributes:
        permit: The id of the permit; None if none is needed.
        epoch: Epoch in which the call begins.
        ramp: Share of all calls that may go without a permit, from 0 to 1; None with a permit.
    """

    permit: str | None
    epoch: int
    ramp: float | None = None


@dataclass(frozen=True, slots=True)
class _Name:
    """The content of an id."""

    permit: str
    worker_id: str
    model: str
    epoch: int
    taken_at: float

    @property
    def owner(self) -> str:
        """Return its holder's name in the shared state: computed from the whole id, so no part can be changed."""
        digest = hashlib.blake2b(self.permit.encode(), digest_size=_DIGEST_BYTES).hexdigest()
        return f"{self.worker_id}/p{digest}"


class Permits:
    """The permits of one scope."""

    def __init__(self, replica: Replica, reports: Reports) -> None:
        self._replica = replica
        self._reports = reports

    async def take(self, asks: PermitBody) -> Granted:
        """Take leave for one call: with a permit if one is needed.

        Raises:
            CallNotPermitted: If calls must wait, or all permits are out.
            StoreError: If Redis does not answer.
        """
        view = self._replica.view
        verdict = self._gate(view, asks.model)
        if verdict.permits:
            return self._free(view)
        if not _is_trial(view, verdict):
            raise CallNotPermitted(verdict.retry_after_s, verdict.reason)
        permit = _issued(redact(asks.worker_id), asks.model, self._epoch, view.now)
        if await self._permitted(permit.owner):
            return Granted(permit.permit, self._epoch)
        # The state that was just read may say that calls go again, or must wait longer.
        verdict = self._gate(self._replica.view, asks.model)
        if verdict.permits:
            return self._free(self._replica.view)
        is_trial = _is_trial(self._replica.view, verdict)
        raise CallNotPermitted(NO_PERMIT_RETRY_S if is_trial else verdict.retry_after_s, verdict.reason)

    async def renew(self, permit: str) -> Granted:
        """Renew a permit for one more lease.

        Raises:
            PermitGone: If it has expired, or its call has taken longer than any trial call may.
            StoreError: If Redis does not answer.
        """
        name = _read(permit)
        if self._replica.now - name.taken_at > self._replica.policy.trial_call_s:
            raise PermitGone
        if not await self._permitted(name.owner, renews=True):
            raise PermitGone
        return Granted(permit, self._epoch)

    async def end(self, permit: str, result: ResultBody | None) -> Settled:
        """Return a permit with the result of its call; without a result if the call was not made, or says nothing.

        Raises:
            PermitGone: If the id was not issued by this service.
            StoreError: If the outcome is uncertain; the call can be repeated.
        """
        name = _read(permit)
        if result is None:
            return await self._settled(name, NEUTRAL)
        model = result.model or name.model
        told = [result.model_copy(update={"model": model})]
        body = ReportBody(worker_id=name.worker_id, epoch=name.epoch, results=told)
        signals = self._reports.signals_of(body)
        # Commit a rate limit before the permit is free, so that no other call takes it and meets the limit too.
        await self._reports.hold(body, signals)
        settled = await self._settled(name, self._of_fleet(signals[0], model))
        # Last, because a permit is returned only once: a repeated result decides nothing.
        await self._reports.count(body, signals, decides=settled is not Settled.LATE)
        return settled

    async def _settled(self, name: _Name, signal: Signal) -> Settled:
        is_held = False

        def verdict(record: SharedState | None, now: float) -> SharedState | None:
            nonlocal is_held
            known = self._replica.base(record, now)
            is_held = trial_calls.holds_permit(known, name.owner)
            if not is_held:
                return None
            took_s = max(now - name.taken_at, 0.0)
            return trial_calls.after_trial(
                known, signal, name.owner, now=now, policy=self._replica.policy, took_s=took_s
            )

        await self._replica.change(verdict)
        if not is_held:
            return Settled.LATE
        is_verdict = signal.effect in (Effect.SUCCESS, Effect.FAILURE)
        return Settled.SETTLED if is_verdict else Settled.RETURNED

    async def _permitted(self, owner: str, *, renews: bool = False) -> bool:
        try:
            return await self._replica.permit(owner, renews=renews)
        except StoreContended:
            # Redis answers: other workers were faster, and none is left.
            return False

    def _of_fleet(self, signal: Signal, model: str) -> Signal:
        view = self._replica.view
        of_fleet, _ = Notes(view.models, view.now).take(signal, model, view.now)
        return of_fleet

    @property
    def _epoch(self) -> int:
        record = self._replica.view.record
        return record.epoch if record else 0

    def _gate(self, view: Snapshot, model: str) -> Gate:
        return gate(view, self._replica.policy, model)

    def _free(self, view: Snapshot) -> Granted:
        record = view.record or SharedState()
        return Granted(None, record.epoch, ramp(view, self._replica.policy))


def _is_trial(view: Snapshot, verdict: Gate) -> bool:
    """Return whether a permit is needed: while half-open, or for the one call that tests a long rate limit."""
    if view.record is None:
        return False
    return verdict.reason == "half_open" or limits.is_look_due(view.record, view.now)


def _issued(worker_id: str, model: str, epoch: int, now: float) -> _Name:
    told = json.dumps([worker_id, model, epoch, int(now)], ensure_ascii=False, separators=(",", ":")).encode()
    readable = base64.urlsafe_b64encode(told).rstrip(b"=").decode()
    return _Name(f"{readable}.{secrets.token_urlsafe(_SECRET_BYTES)}", worker_id, model, epoch, now)


def _read(permit: str) -> _Name:
    """Decode an id; only the shared state can confirm it."""
    readable = permit.partition(".")[0]
    try:
        told = json_of(base64.urlsafe_b64decode(readable + "=" * (-len(readable) % 4)))
    except ValueError:
        raise PermitGone from None
    match told:
        case [worker_id, model, int() as epoch, int() as taken_at] if 0 <= taken_at < SEQUENCE_MAX:
            return _Name(permit, *_checked(worker_id, model, epoch), epoch, taken_at)
        case _:
            raise PermitGone


def _checked(worker_id: Any, model: Any, epoch: int) -> tuple[str, str]:
    """Return the names in an id, which a client may have made up; names that we would not issue are refused."""
    try:
        asks = PermitBody(worker_id=worker_id, model=model)
    except ValidationError:
        raise PermitGone from None
    if not 0 <= epoch <= SEQUENCE_MAX or redact(worker_id) != worker_id:
        raise PermitGone
    return asks.worker_id, asks.model
