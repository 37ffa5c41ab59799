"""The gate and the badge: whether calls may go, for machines and for people."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import httpx
import pytest

from openrouter_guard.api.status import badge
from openrouter_guard.api.status.gate import Gate, gate, whole_s
from openrouter_guard.errors import StoreUnavailable
from openrouter_guard.replica import Snapshot
from openrouter_guard.rules.breaker import Closed, HalfOpen, Open, Policy
from openrouter_guard.rules.models import Model
from openrouter_guard.rules.override import Override, OverrideKind
from openrouter_guard.rules.shared_state import SharedState, Upstream
from openrouter_guard.rules.signals import OpenRouterState
from openrouter_guard.settings import Settings
from openrouter_guard.store import Store
from tests.service.apps import FakeUpstream, eventually, open_breaker, running

GATE, BADGE = "/api/v1/openrouter/gate", "/api/v1/openrouter/badge"
NOW_S = 10_000.0
AWAY = StoreUnavailable("away")
OPEN, OVER, HALF_OPEN = Open("timeout", 1.0, NOW_S + 30), Open("timeout", 1.0, NOW_S - 1), HalfOpen("timeout", 1.0)
LIMITED = Upstream(rate_limit_reset_at=NOW_S + 90)


WELL = Upstream(message="Service active", checked_at=NOW_S - 5)


def seen(state: str) -> Upstream:
    return replace(WELL, state=OpenRouterState(state))


def override(kind: OverrideKind, ends_in_s: float = 60.0) -> Override:
    return Override(kind, "ops", "drill", NOW_S + ends_in_s)


@pytest.mark.parametrize(
    ("known", "expected", "without_redis"),
    [
        pytest.param(None, Gate(), Gate(), id="nothing is known"),
        pytest.param(SharedState(), Gate(), Gate(), id="closed"),
        pytest.param(SharedState(breaker=Closed(4)), Gate(), Gate(), id="failing, and still closed"),
        pytest.param(
            SharedState(breaker=OPEN), Gate("timeout", 30), Gate("timeout", 30), id="open: a deadline that is known"
        ),
        pytest.param(SharedState(breaker=OVER), Gate("half_open", 5), Gate(), id="half-open by time"),
        pytest.param(SharedState(breaker=HALF_OPEN), Gate("half_open", 5), Gate(), id="half-open"),
        pytest.param(
            SharedState(upstream=LIMITED), Gate("rate_limited", 90), Gate("rate_limited", 90), id="rate limited"
        ),
        pytest.param(
            SharedState(override=override(OverrideKind.FORCED_OPEN)),
            Gate("forced_open", 60),
            Gate("forced_open", 60),
            id="a person stops all",
        ),
        pytest.param(
            SharedState(breaker=OPEN, override=override(OverrideKind.FORCED_CLOSED)),
            Gate(),
            Gate(),
            id="a person lets all go",
        ),
        pytest.param(
            SharedState(OPEN, upstream=LIMITED, override=override(OverrideKind.DISABLED)),
            Gate(),
            Gate(),
            id="disabled",
        ),
        pytest.param(
            SharedState(override=override(OverrideKind.FORCED_OPEN, -1)),
            Gate(),
            Gate(),
            id="what a person decided is over",
        ),
    ],
)
def test_gate(known: SharedState | None, expected: Gate, without_redis: Gate) -> None:
    assert gate(Snapshot(known, NOW_S), Policy()) == expected
    assert gate(Snapshot(known, NOW_S, AWAY), Policy()) == without_redis


def test_a_model_that_cools_down_holds_back_its_own_calls_alone() -> None:
    view = Snapshot(SharedState(), NOW_S, models={"a": Model(until=NOW_S + 7, reason="rate_limited")})
    assert gate(view, Policy(), "a") == Gate("rate_limited", 7)
    assert gate(view, Policy(), "b") == gate(view, Policy()) == Gate()


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, 1), (0.2, 1), (1.0, 1), (29.01, 30)])
def test_a_wait_is_rounded_up(seconds: float, expected: int) -> None:
    assert whole_s(seconds) == expected


async def test_200_while_calls_go_and_503_with_a_time_while_they_do_not(
    settings: Settings, upstream: FakeUpstream, store: Store
) -> None:
    async with running(settings, upstream) as service:
        free = await service.get(GATE)
        known = await open_breaker(store, settings)

        async def is_closed() -> httpx.Response | None:
            answer = await service.get(GATE)
            return answer if answer.status_code == 503 else None

        refused = await eventually(is_closed)
    told = {"permitted": True, "ramp": 1.0, "epoch": free.json()["epoch"], "degraded": False, "scope": "default"}
    assert (free.status_code, free.json()) == (200, told)
    assert refused.headers["content-type"] == "application/problem+json"
    assert 4 < int(refused.headers["retry-after"]) <= 8
    assert refused.headers["openrouter-guard"] == f"refused; reason={known.transitions[-1].reason}"
    assert refused.json()["reason"] == known.transitions[-1].reason
    assert {answer.headers["cache-control"] for answer in (free, refused)} == {"no-store"}
    assert upstream.calls <= 1  # the service's own check, and none for those who asked


class TestTheBadge:
    @pytest.mark.parametrize(
        ("view", "words"),
        [
            pytest.param(Snapshot(None, NOW_S), "unknown", id="nothing is known"),
            pytest.param(Snapshot(SharedState(), NOW_S, AWAY), "unknown", id="Redis is away"),
            pytest.param(Snapshot(SharedState(), NOW_S), "unknown", id="nobody has asked yet"),
            pytest.param(Snapshot(SharedState(upstream=WELL), NOW_S), "up", id="closed"),
            pytest.param(Snapshot(SharedState(Closed(2)), NOW_S), "failing", id="failing"),
            pytest.param(
                Snapshot(SharedState(upstream=seen("api_key_missing")), NOW_S), "unknown", id="nobody can ask"
            ),
            pytest.param(
                Snapshot(SharedState(upstream=seen("api_key_invalid")), NOW_S), "failing", id="the key is refused"
            ),
            pytest.param(
                Snapshot(SharedState(upstream=seen("credits_exhausted")), NOW_S), "failing", id="no money is left"
            ),
            pytest.param(Snapshot(SharedState(upstream=LIMITED), NOW_S), "rate limited", id="rate limited"),
            pytest.param(Snapshot(SharedState(OPEN), NOW_S), "timeout", id="open"),
            pytest.param(Snapshot(SharedState(HALF_OPEN), NOW_S), "recovering", id="half-open"),
            pytest.param(
                Snapshot(SharedState(override=override(OverrideKind.FORCED_OPEN)), NOW_S),
                "forced open",
                id="a person's decision",
            ),
        ],
    )
    def test_it_says_the_state_in_words(self, view: Snapshot, words: str) -> None:
        assert badge.words(view)[0] == words

    @pytest.mark.parametrize("words", ["up", "<script>\"&'", "x" * 40])
    def test_it_is_well_formed_whatever_the_reason_is(self, words: str) -> None:
        root = ET.fromstring(badge.svg("OpenRouter", words, "#000"))
        texts = [node.text for node in root.iter() if node.tag.endswith("}text")]
        assert texts == ["OpenRouter", words]
        assert root.attrib["aria-label"] == f"OpenRouter: {words}"

    @pytest.mark.parametrize("colour", [badge._GREEN, badge._YELLOW, badge._RED, badge._GREY, "#3c4043"])
    def test_white_text_on_it_can_be_read(self, colour: str) -> None:
        channels = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
        linear = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
        luminance = sum(part * share for part, share in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))
        assert 1.05 / (luminance + 0.05) >= 4.5

    async def test_it_may_be_kept_for_a_moment(self, settings: Settings, upstream: FakeUpstream) -> None:
        async with running(settings, upstream) as service:
            first = await service.get(BADGE)
            again = await service.get(BADGE, headers={"If-None-Match": first.headers["etag"]})
        assert first.headers["content-type"] == "image/svg+xml"
        assert first.headers["cache-control"] == "max-age=30"
        assert (again.status_code, again.content) == (304, b"")
