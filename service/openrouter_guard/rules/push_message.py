"""Reads a push about the breaker, ahead of the read that follows it."""

from __future__ import annotations

from dataclasses import replace

from .breaker import BreakerState, Open
from .codec import EPOCH_AHEAD_S
from .parsing import object_of, parse_moment, whole
from .shared_state import SharedState
from .signals import MAX_WAIT_S, OpenRouterState
from .text import WORD_MOST, words_of

__all__ = ["is_of", "opening"]

NEWS_MOST = 4096


def is_of(message: str, database: int) -> bool:
    """Return whether the message names this database, as every one about an opening does."""
    return object_of(message, NEWS_MOST).get("database") == str(database)


def opening(message: str, known: SharedState, now: float) -> SharedState | None:
    """Return the record with the opening in a message on the channel.

    Returns:
        None if it is not a new opening.
    """
    news = object_of(message, NEWS_MOST)
    epoch = whole(news.get("epoch"), int((now + EPOCH_AHEAD_S) * 1000))
    until = parse_moment(news.get("open_until"), now, MAX_WAIT_S)
    if news.get("breaker") != BreakerState.OPEN or epoch <= known.epoch or until <= now:
        return None
    reason = words_of(news.get("reason"), WORD_MOST) or OpenRouterState.SERVICE_UNAVAILABLE.value
    breaker = Open(reason, opened_at=now, until=until, failures=known.breaker.failures)
    return replace(known, breaker=breaker, epoch=epoch)
