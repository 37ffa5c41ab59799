"""The double behaves as the existing system was observed to: `recorded.json` holds the result of each operation.

These tests import nothing of ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.existing import LOCK, STATE, Checked, ExistingApi, ExistingManager, ExistingReporter

RECORDED = json.loads((Path(__file__).parent / "recorded.json").read_text())
AT = datetime.fromisoformat(RECORDED["clock"])
DAY = f"{AT:%Y-%m-%d}"


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def reporter(client: Any) -> ExistingReporter:
    return ExistingReporter(client, RECORDED["worker_id"], lambda: AT)


def manager(client: Any, *, later_s: float = 0) -> ExistingManager:
    return ExistingManager(client, lambda: AT + timedelta(seconds=later_s))


@pytest.mark.parametrize("operation", [pytest.param(each, id=each["name"]) for each in RECORDED["operations"]])
def test_each_operation_leaves_what_was_recorded(client: Any, operation: dict[str, Any]) -> None:
    if operation["before"]:
        client.hset(STATE, mapping=operation["before"])
    if operation["lock_held"]:
        client.set(LOCK, "somebody else")
    whose, name = operation["operation"].split(".")
    double = {"reporter": reporter(client), "manager": manager(client)}[whose]
    assert getattr(double, name)(**operation["arguments"]) is operation["returns"]
    errors = f"openrouter:worker_errors:{DAY}"
    assert client.hgetall(STATE) == operation["hash"]
    assert client.ttl(STATE) == operation["ttl_s"]
    assert client.lrange(errors, 0, -1) == operation["errors"]
    assert client.ttl(errors) == (operation["errors_ttl_s"] or -2)
    assert client.hgetall(f"openrouter:metrics:{DAY}") == operation["metrics"]
    assert client.exists(LOCK) == operation["lock_held"]


class TestReading:
    def test_without_a_last_check_it_sees_no_state_though_the_breaker_is_open(self, client: Any) -> None:
        client.hset(STATE, mapping={"state": "error", "circuit_breaker_open": "true"})
        assert manager(client).get_state(force_refresh=True) is None
        assert manager(client).should_skip_api_call() == (False, None)

    @pytest.mark.parametrize(
        ("age_s", "is_seen", "is_fresh"), [(60, True, True), (300, True, False), (301, False, False)]
    )
    def test_a_last_check_decides_whether_it_is_seen(
        self, client: Any, age_s: int, *, is_seen: bool, is_fresh: bool
    ) -> None:
        client.hset(STATE, mapping={"state": "error", "circuit_breaker_open": "true", "last_check": AT.isoformat()})
        found = manager(client, later_s=age_s)
        assert (found.get_state() is not None, found.is_fresh()) == (is_seen, is_fresh)
        assert found.should_skip_api_call()[0] is is_seen
        assert found.get_state(force_refresh=True)

    @pytest.mark.parametrize(
        ("state", "later_s", "skips"), [("rate_limited", 59, True), ("rate_limited", 61, False), ("active", 1, False)]
    )
    def test_a_reset_holds_while_the_state_says_so(
        self, client: Any, state: str, later_s: float, *, skips: bool
    ) -> None:
        reporter(client).report_api_error("no", 429)
        client.hset(STATE, "state", state)
        assert manager(client, later_s=later_s).should_skip_api_call() == (skips, "Rate limited" if skips else None)


class TestItsApi:
    def test_a_check_resets_the_failures_and_fills_the_balance_with_the_usage(self, client: Any) -> None:
        reporter(client).report_api_error("no", 503)
        answer = ExistingApi(manager(client, later_s=90), lambda: Checked(usage=4.5)).status()
        assert (answer["status"], answer["balance"], answer["consecutive_failures"]) == ("active", 4.5, 0)
        assert client.hget(STATE, "circuit_breaker_open") == "false"

    def test_what_is_fresh_is_not_asked_for(self, client: Any) -> None:
        reporter(client).report_api_error("no", 503)
        answer = ExistingApi(manager(client), lambda: pytest.fail("it asked")).status()
        assert (answer["status"], answer["cache_hit"]) == ("service_unavailable", True)

    def test_without_a_key_all_else_is_null(self, client: Any) -> None:
        answer = ExistingApi(manager(client), Checked, api_key="").status()
        assert answer.pop("status") == "api_key_missing"
        assert answer.pop("cache_hit") is False
        assert set(answer.values()) == {None}


def test_a_redis_that_is_away_is_its_nothing() -> None:
    nowhere = redis.Redis(port=1, decode_responses=True, retry=Retry(NoBackoff(), 0))
    assert reporter(nowhere).report_api_error("no", 503) is False
    assert reporter(nowhere).report_api_success() is False
    assert manager(nowhere).update_state("active", "Service active") is False
    assert manager(nowhere).get_state() is None
    assert manager(nowhere).should_skip_api_call() == (False, None)
    assert ExistingApi(manager(nowhere), Checked).status()["status"] == "error"


@pytest.mark.parametrize(
    ("message", "status_code", "kind"),
    [
        ("no", 401, "api_key_invalid"),
        ("Authentication failed", None, "api_key_invalid"),
        ("Quota exceeded", 500, "credits_exhausted"),
        ("Too many requests", None, "rate_limited"),
        ("Internal error", 500, "service_unavailable"),
        ("read timed out", None, "timeout"),
        ("dns", None, "network_error"),
        ("Bad gateway", 502, "unknown_error"),
        ("no", 500, "unknown_error"),
    ],
)
def test_how_it_classifies(client: Any, message: str, status_code: int | None, kind: str) -> None:
    assert reporter(client)._classify_error(message, status_code) == kind


def test_its_times_have_an_offset(client: Any) -> None:
    ExistingReporter(client).report_api_success()
    assert datetime.fromisoformat(client.hget(STATE, "last_check")).utcoffset() == UTC.utcoffset(None)
