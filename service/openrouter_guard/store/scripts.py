"""The scripts that run inside Redis."""

from __future__ import annotations

from importlib import resources

from openrouter_guard.rules import models, question_codec
from openrouter_guard.rules.codec import CALLS_MOST, COUNT_MOST, EPOCH_AHEAD_S, FIELDS, SHARES_MOST
from openrouter_guard.rules.failure_run import SHARES_KEPT
from openrouter_guard.rules.override import OVERRIDE_MOST_S
from openrouter_guard.rules.parsing import CLOCK_S, JSON_MOST, YEAR_2000_S
from openrouter_guard.rules.question import ACQUITTED_S, EARLIER_S, HELD_S

from .connection import Script

__all__ = ["ANSWER", "COMMIT", "COUNT", "LEASE", "LIMITS", "MEND", "NOTE", "PERMIT", "TIMES"]

LIMITS = {
    "year_2000_s": YEAR_2000_S,
    "clock_s": CLOCK_S,
    "epoch_ahead_s": EPOCH_AHEAD_S,
    "override_s": OVERRIDE_MOST_S + CLOCK_S,
    "wait_s": models.WAIT_MOST_S,
    "seen_s": models.SEEN_S,
    "json": JSON_MOST,
    "count": COUNT_MOST,
    "calls": CALLS_MOST,
    "failures": models.FAILURES_MOST,
    "entry": models.MODEL_MOST,
    "name": 4 * models.NAME_MOST,
    "kept": models.KEPT,
    "fine": models.FINE_KEPT,
    "share_kept": SHARES_KEPT,
    "shares": SHARES_MOST,
    "took_s": question_codec.TOOK_MOST_S,
    "text": question_codec.TEXT_MOST,
    "held_s": HELD_S,
    "earlier_s": EARLIER_S,
    "acquitted_s": ACQUITTED_S,
}
"""The limits of the counting script: the same as those of the rules in Python."""


def _script(*names: str, before: str = "") -> Script:
    files = (resources.files(__package__).joinpath(f"{name}.lua") for name in ("own", *names))
    return Script("".join((before, *(file.read_text() for file in files))))


def _constants() -> str:
    """Lua tables, which are cheaper for a script than arguments."""
    limits = ", ".join(f"{name} = {value!r}" for name, value in LIMITS.items())
    fields = ", ".join(f'"{name}"' for name in FIELDS)
    return f"local LIMITS = {{ {limits} }}\nlocal FIELDS = {{ {fields} }}\n"


COUNT = _script("reading", "models", "count", before=_constants())
COMMIT, NOTE, MEND = (_script("history", name) for name in ("commit", "note", "mend"))
PERMIT, TIMES, LEASE, ANSWER = map(_script, ("permit", "times", "lease", "answer"))
