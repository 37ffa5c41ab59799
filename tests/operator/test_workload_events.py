"""The Events of a paused workload; no reconcile waits until they are posted."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, cast

import pytest

from openrouter_guard.rules.breaker import Closed
from openrouter_operator.controller import event_poster
from openrouter_operator.controller.event_poster import Poster
from openrouter_operator.decisions.events import Event
from openrouter_operator.decisions.goal import Goal, Step
from openrouter_operator.decisions.workload_events import notice, until
from openrouter_operator.kubernetes.client import Cluster, Unavailable
from openrouter_operator.workloads.kinds import BY_NAME
from openrouter_operator.workloads.workload import Change, Pause, Workload, forgets
from tests.operator.samples import NOW_S, closed, opened, paused, snapshot, spec, workload

WHO = "OpenRouterStatus default"
PAUSED = paused("a", original=3)
PAUSE_OF_A = Pause("uid-of-default", "default", epoch=7, original=3, set_to=0, at=NOW_S)
PAUSE = Goal(Step.PAUSE, "BreakerOpen")


def test_the_first_pause_says_who_why_how_far_until_when_and_how_to_opt_out() -> None:
    change = Change(workload("a", 3), 1, paused("a", original=3, set_to=1).pause)
    assert notice(change, WHO, "timeout", "by 2026-01-01T00:00:00Z at the latest") == Event(
        "Normal",
        "Paused",
        "Scaled from 3 to 1 pods by OpenRouterStatus default (timeout) until the breaker closes, by"
        " 2026-01-01T00:00:00Z at the latest. To keep it running in outages, annotate it with"
        ' openrouter-guard.io/pause: "false"',
    )


def test_what_is_suspended_starts_no_new_pods() -> None:
    cron_job = replace(workload("a"), kind=BY_NAME["CronJob"], value=False)
    told = notice(Change(cron_job, True, replace(PAUSE_OF_A, set_to=True)), WHO, "timeout")
    assert told
    assert "Suspended by OpenRouterStatus default (timeout) until the breaker closes." in told.message
    resumed = notice(Change(replace(cron_job, value=True, pause=PAUSE_OF_A), False, pause=None), WHO, "BreakerClosed")
    assert resumed == ("Normal", "Resumed", "Resumed by OpenRouterStatus default (BreakerClosed)")


def test_what_keda_holds_keeps_the_pods_that_it_has() -> None:
    running = replace(workload("a"), kind=BY_NAME["ScaledObject"], value=None)
    told = notice(Change(running, "held", replace(PAUSE_OF_A, original=None, set_to="held")), WHO, "timeout")
    assert told
    assert told.message.startswith("Held at the pods that it has by OpenRouterStatus default (timeout)")


def test_the_end_says_why_and_with_how_many_pods() -> None:
    told = notice(Change(PAUSED, 3, pause=None), WHO, "BreakerClosed")
    assert told == Event("Normal", "Resumed", f"Scaled from 0 to 3 pods by {WHO} (BreakerClosed)")


def test_what_admission_made_of_the_way_back_is_told() -> None:
    change = Change(PAUSED, 3, pause=None, became=workload("a", 2))
    assert notice(change, WHO, "BreakerClosed") == Event(
        "Warning",
        "ChangedByAdmission",
        "It came back, and 3 pods were asked for: an admission policy or webhook made 2 of that, by"
        " OpenRouterStatus default (BreakerClosed)",
    )
    assert notice(replace(change, became=workload("a", 3)), WHO, "BreakerClosed") == notice(
        replace(change, became=None), WHO, "BreakerClosed"
    )


def test_what_somebody_has_set_is_let_go() -> None:
    told = notice(forgets(replace(PAUSED, value=5)), WHO, "BreakerOpen")
    assert told == Event("Normal", "LetGo", f"{WHO} drops its pause and leaves it as it was changed (5)")


@pytest.mark.parametrize(
    "change",
    [
        Change(PAUSED, 1, replace(PAUSE_OF_A, set_to=1)),
        Change(replace(PAUSED, is_stripped=True), 0, PAUSED.pause, is_written=False),
        forgets(replace(workload("a", 0), has_litter=True)),
    ],
    ids=["a step", "an annotation that is mended", "litter"],
)
def test_nothing_else_is_told(change: Change) -> None:
    assert notice(change, WHO, "timeout") is None


def test_a_copy_that_comes_back_is_told() -> None:
    told = notice(Change(replace(PAUSED, pause=None, copied=PAUSED.pause), 3, pause=None), WHO, "it is a copy")
    assert told
    assert told.reason == "Resumed"


def test_the_latest_end_is_that_of_the_longest_pause_or_of_the_rate_limit() -> None:
    assert until(spec(), PAUSE, opened()) == ""
    assert until(spec(maxPauseSeconds=600), PAUSE, opened()) == "by 1970-01-01T00:26:40Z at the latest"
    limited = snapshot(Closed(), rate_limit_reset_at=NOW_S + 400)
    assert until(spec(), Goal(Step.PAUSE, "RateLimited"), limited) == "by 1970-01-01T00:23:20Z at the latest"
    assert until(spec(), PAUSE, closed()) == ""


class Api:
    """Takes events, or does not."""

    now = NOW_S

    def __init__(self) -> None:
        self.posted: list[tuple[str, str, float]] = []
        self.is_away = False

    async def create_event(self, seen: Workload, _type: str, reason: str, _message: str, at: float) -> None:
        if self.is_away:
            raise Unavailable("it is away")
        self.posted.append((seen.name, reason, at))


def test_events_are_dated_when_they_happened_and_dropped_where_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_poster, "WAITING_MOST", 2)

    async def post() -> list[tuple[str, str, float]]:
        poster = Poster(cast("Cluster", api))
        for name in ("a", "b", "c"):
            poster.put(workload(name), Event("Normal", "Paused", ""))
        api.now = NOW_S + 60
        await poster.post()
        await poster.post()
        return api.posted

    api = Api()
    assert asyncio.run(post()) == [("a", "Paused", NOW_S), ("b", "Paused", NOW_S)]


def test_an_api_server_that_takes_no_events_is_told_of_once(caplog: Any) -> None:
    async def post() -> None:
        poster = Poster(cast("Cluster", api))
        for _ in range(3):
            poster.put(workload(), Event("Normal", "Paused", ""))
            await poster.post()
        api.is_away = False
        poster.put(workload(), Event("Normal", "Resumed", ""))
        await poster.post()

    api = Api()
    api.is_away = True
    with caplog.at_level("INFO"):
        asyncio.run(post())
    assert [record.message for record in caplog.records] == [
        "Events on workloads cannot be posted: it is away",
        "Events on workloads are posted again",
    ]
    assert [reason for _, reason, _ in api.posted] == ["Resumed"]
