"""Encodes the question to the fleet, and the evidence of a run of failures, as fields of the hash.

Each is a few numbers separated by spaces, which the scripts in Redis read and write too. Times are Unix seconds. If
one number is invalid or out of bounds, the field counts as absent.
"""

from __future__ import annotations

from .parsing import CLOCK_S, YEAR_2000_S, number, text_of, whole
from .question import NEVER, NOTHING, Acquittal, Evidence, Question

__all__ = [
    "ANSWERS_MOST",
    "TEXT_MOST",
    "TOOK_MOST_S",
    "acquittal_of",
    "evidence_of",
    "fields_of",
    "question_of",
    "words",
]

TOOK_MOST_S = 1e9
"""Upper limit for the total duration of a run's calls."""
COUNT_MOST = 10**9
NUMBER_MOST = 10**15
TEXT_MOST = 200
ANSWERS_MOST = 16_384


def evidence_of(text: str | None, now: float) -> Evidence:
    """Return the evidence of a run."""
    found = _numbers(text, (YEAR_2000_S, now + CLOCK_S), 2, (0.0, TOOK_MOST_S), 3)
    if found is None:
        return NOTHING
    began_at, since, timed, took_s, longest_s = found
    return Evidence(began_at, since, int(timed), took_s, longest_s) if timed >= 1 else NOTHING


def question_of(text: str | None, answers: str | None, now: float) -> Question | None:
    """Return the open question, with the answers so far; None if there is none."""
    name, _, rest = text_of(text, TEXT_MOST).partition(" ")
    found = _numbers(rest, (YEAR_2000_S, now + CLOCK_S), 3, (0.0, TOOK_MOST_S), 1)
    asked = whole(name, NUMBER_MOST)
    if found is None or not asked:
        return None
    at, began_at, since, usual_s = found
    told = text_of(answers, ANSWERS_MOST).split(" ", 2)
    is_answered = len(told) >= 2 and told[0] == name
    return Question(asked, at, began_at, usual_s, since, whole(told[1], COUNT_MOST) if is_answered else 0)


def acquittal_of(text: str | None, now: float) -> Acquittal:
    """The last acquittal."""
    found = _numbers(text, (YEAR_2000_S, now + CLOCK_S), 2, (0.0, 0.0), 0)
    return Acquittal(found[0], found[1]) if found else NEVER


def fields_of(evidence: Evidence, question: Question | None, earlier: int) -> dict[str, str]:
    """Return the fields of a run of failures.

    Answers are written by the processes that give them; here they are only removed.
    """
    known = (evidence.began_at, evidence.since, evidence.timed, evidence.took_s, evidence.longest_s)
    evidence_text = words(*known) if evidence.timed else ""
    run = {"run_evidence": evidence_text, "run_earlier": str(earlier or "")}
    if question is None:
        return {**run, "question": "", "answers": ""}
    about = words(question.at, question.began_at, question.since, question.usual_s)
    return {**run, "question": f"{question.number} {about}"}


def words(*numbers: float) -> str:
    """Encode numbers."""
    return " ".join(f"{each:.6f}" for each in numbers)


def _numbers(
    text: str | None, times: tuple[float, float], how_many: int, spans: tuple[float, float], then: int
) -> list[float] | None:
    """Return this many times, and then this many durations; None unless all are there."""
    told = text_of(text, TEXT_MOST).split(" ")
    if len(told) != how_many + then:
        return None
    bounds = [times] * how_many + [spans] * then
    found = [number(each, *between) for each, between in zip(told, bounds, strict=True)]
    known = [each for each in found if each is not None]
    return known if len(known) == len(found) else None
