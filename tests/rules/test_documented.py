"""The tables of the documentation agree with the code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from openrouter_guard.rules.breaker import Policy, threshold
from openrouter_guard.rules.signals import Effect, Signal, classify_status

DOCUMENT = (Path(__file__).parents[2] / "docs" / "breaker.md").read_text()
THRESHOLDS = re.findall(r"^\| ([\d,]+) \| (\d) \|$", DOCUMENT, re.MULTILINE)
ANSWERS = re.findall(r"^\| (\d{3}.*?) \| (\D+) \|$", DOCUMENT, re.MULTILINE)
RESET: Mapping[str, str] = {"retry-after": "30"}
WORDS = {
    "key limit exceeded": "Key limit exceeded (monthly)",
    "moderation": "Flagged by moderation",
    "can only afford": "You requested up to 64 tokens, but can only afford 30.",
}


@pytest.mark.parametrize(("calls_a_minute", "failures"), THRESHOLDS)
def test_the_threshold(calls_a_minute: str, failures: str) -> None:
    assert threshold(float(calls_a_minute.replace(",", "")), Policy()) == int(failures)


@pytest.mark.parametrize(("answers", "says"), ANSWERS)
def test_what_counts(answers: str, says: str) -> None:
    for code in re.findall(r"\b\d{3}\b", answers):
        headers = {"retry-after": "0"} if "wait of zero" in answers else RESET if "Retry-After" in answers else {}
        message = next((message for word, message in WORDS.items() if word in answers), "")
        metadata = {"provider_name": "Acme"} if "provider" in answers else {}
        error = {"message": message, "metadata": metadata}
        found = classify_status(int(code), error=error, headers=headers, now=0.0)
        assert in_words(found) == says, code


def in_words(signal: Signal) -> str:
    if signal.doubts_account:
        return "a failure, confirmed first"
    return {
        Effect.FAILURE: "a failure",
        Effect.RATE_LIMIT: "a rate limit",
        Effect.NEUTRAL: "nothing",
        Effect.MODEL: "a failure of its model",
        Effect.SUCCESS: "a success",
    }[signal.effect]


def test_no_table_was_lost() -> None:
    assert (len(THRESHOLDS), len(ANSWERS)) == (5, 11)
