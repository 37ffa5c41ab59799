"""Transitions, workers, and models over HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import pytest
import redis.asyncio as aioredis

from openrouter_guard.api.schemas.activity import WorkersAnswer
from openrouter_guard.api.status import activity
from openrouter_guard.replica import Snapshot
from openrouter_guard.rules.breaker import Policy
from openrouter_guard.rules.codec import iso
from openrouter_guard.rules.models import Model, Run
from openrouter_guard.rules.override import Override, OverrideKind
from openrouter_guard.rules.shared_state import fresh
from openrouter_guard.rules.transitions import overridden, released
from openrouter_guard.settings import Settings
from openrouter_guard.store import Batch, Store
from tests.service.apps import FakeUpstream, ask, eventually, open_breaker, running

HISTORY = "/api/v1/openrouter/history"
WORKERS = "/api/v1/openrouter/workers"
MODELS = "/api/v1/openrouter/models"
NOW_S = 1_772_366_400.0
DAY_S = 86_400.0


def entry(epoch: int, age_s: float = 0.0, **fields: str) -> Mapping[str, str]:
    own = {"from": "closed", "to": "open", "reason": "timeout", "by": "worker-a", "at": iso(NOW_S - age_s)}
    return {"epoch": str(epoch), "seq": "0", **own, **fields}


async def transitions(store: Store, count: int) -> None:
    """So many changes of the breaker, by a person who cannot decide."""
    override = Override(OverrideKind.FORCED_OPEN, "ops", "drill", time.time() + 600)
    for number in range(count):
        await store.change(
            lambda known, now, number=number: (  # type: ignore[misc]
                released(known, by="ops", now=now)
                if number % 2 and known
                else overridden(known or fresh(now), override, now)
            )
        )


class TestHistory:
    async def test_an_opening_is_there_with_its_reason_and_who_saw_it(
        self, settings: Settings, upstream: FakeUpstream, store: Store
    ) -> None:
        known = await open_breaker(store, settings)
        async with running(settings, upstream) as service:
            answer = await ask(service, HISTORY)
        (change,) = answer["transitions"]
        assert change["epoch"] == known.epoch
        assert (change["from"], change["to"], change["by"]) == ("closed", "open", "me")
        assert change["reason"] == known.transitions[-1].reason
        assert change["at"] == iso(known.transitions[-1].at)
        assert (answer["next_before"], answer["scope"]) == (None, "default")

    async def test_nothing_is_an_empty_list(self, settings: Settings, upstream: FakeUpstream) -> None:
        async with running(settings, upstream) as service:
            assert await ask(service, HISTORY) == {"transitions": [], "next_before": None, "scope": "default"}

    async def test_page_by_page_all_come_once_and_newest_first(
        self, settings: Settings, upstream: FakeUpstream, store: Store
    ) -> None:
        await transitions(store, 7)
        found, sizes, before = [], [], ""
        async with running(settings, upstream) as service:
            while True:
                answer = await ask(service, f"{HISTORY}?limit=3{before}")
                found += [change["epoch"] for change in answer["transitions"]]
                sizes.append(len(answer["transitions"]))
                if answer["next_before"] is None:
                    break
                before = f"&before={answer['next_before']}"
        assert sizes == [3, 3, 1]
        assert found == sorted(set(found), reverse=True)

    async def test_an_alarm_is_among_them_and_no_page_loses_what_shares_its_epoch(
        self, settings: Settings, upstream: FakeUpstream, store: Store
    ) -> None:
        known = await open_breaker(store, settings)
        alarm = {"from": "open", "to": "open", "reason": "error_rate_high", "by": "me", "at": iso(time.time())}
        for seq in (1, 2):
            await store.note({**alarm, "error_rate": "0.5"}, epoch=known.epoch, seq=seq)
        found, before = [], ""
        async with running(settings, upstream) as service:
            for _ in range(3):
                answer = await ask(service, f"{HISTORY}?limit=1&before={before}")
                found += [(change["epoch"], change["to"], change["error_rate"]) for change in answer["transitions"]]
                before = answer["next_before"]
        assert found == [(known.epoch, "open", rate) for rate in (0.5, 0.5, None)]
        assert before is None

    def test_what_is_older_than_asked_for_is_left_out(self) -> None:
        entries = [entry(3), entry(2, age_s=1.9 * DAY_S), entry(1, age_s=2.1 * DAY_S)]
        found = activity.history(entries, limit=10, days=2, now=NOW_S, scope="default")
        assert [change.epoch for change in found.transitions] == [3, 2]

    def test_an_entry_that_nobody_can_read_hides_no_other(self) -> None:
        entries = [entry(3), entry(2, to="sideways"), entry(1)]
        found = activity.history(entries, limit=10, days=30, now=NOW_S, scope="default")
        assert [change.epoch for change in found.transitions] == [3, 1]


class TestWorkers:
    def listed(self, beats: Mapping[str, Any], *errors: Any, limit: int = 100) -> WorkersAnswer:
        return activity.workers(beats, errors, limit=limit, now=NOW_S, scope="default")

    def beat(self, age_s: float) -> Mapping[str, str]:
        return {"version": "1.2.3", "last_seen": iso(NOW_S - age_s)}

    def error(self, worker: str, age_s: float, error_type: str = "timeout") -> Mapping[str, Any]:
        return {
            "timestamp": iso(NOW_S - age_s),
            "worker_id": worker,
            "error_type": error_type,
            "error_message": "no answer",
            "status_code": None,
        }

    def test_those_seen_last_come_first_and_the_silent_are_not_live(self) -> None:
        answer = self.listed({"a": self.beat(91), "b": self.beat(5), "c": self.beat(90)})
        assert [(worker.worker_id, worker.live) for worker in answer.workers] == [
            ("b", True),
            ("c", True),
            ("a", False),
        ]
        assert (answer.total, answer.live) == (3, 2)
        assert {worker.version for worker in answer.workers} == {"1.2.3"}

    def test_a_worker_of_an_earlier_system_is_known_by_its_error(self) -> None:
        (worker,) = self.listed({}, self.error("old", 10)).workers
        assert (worker.worker_id, worker.version, worker.live) == ("old", None, True)
        assert worker.last_seen == iso(NOW_S - 10)

    def test_the_newest_error_of_each_is_shown(self) -> None:
        errors = (self.error("a", 1, "rate_limited"), self.error("b", 2), self.error("a", 3, "timeout"))
        found = {w.worker_id: w.last_error for w in self.listed({"a": self.beat(0)}, *errors).workers}
        assert found["a"]
        assert (found["a"].error_type, found["a"].at) == ("rate_limited", iso(NOW_S - 1))

    def test_beyond_the_limit_they_are_counted(self) -> None:
        answer = self.listed({f"w{number}": self.beat(number) for number in range(5)}, limit=2)
        assert ([worker.worker_id for worker in answer.workers], answer.total) == (["w0", "w1"], 5)

    @pytest.mark.parametrize("about", [{}, {"last_seen": 7}, {"last_seen": "2020-01-01T00:00:00+00:00"}])
    def test_who_left_nothing_readable_or_is_long_gone_is_not_listed(self, about: Any) -> None:
        answer = self.listed({"here": self.beat(0), "odd": about}, {"worker_id": ["odd"]}, self.error("old", 601))
        assert [worker.worker_id for worker in answer.workers] == ["here"]

    async def test_who_beats_is_there(self, settings: Settings, upstream: FakeUpstream, store: Store) -> None:
        now = time.time()
        await store.heartbeat("here", {"version": "1", "last_seen": iso(now)})
        failed = {**self.error("old", 0), "timestamp": iso(now)}
        await store.count(Batch(0, "r", 1, [], errors=[json.dumps(failed)]), at=now)
        async with running(settings, upstream) as service:
            answer = await ask(service, WORKERS)
        assert {worker["worker_id"]: worker["version"] for worker in answer["workers"]} == {"here": "1", "old": None}


async def test_what_an_operator_has_paused_is_told_as_it_says(
    settings: Settings, upstream: FakeUpstream, store: Store
) -> None:
    now = iso(time.time())
    await store.tell_paused("production", {"last_seen": now, "paused": 3})
    async with running(settings, upstream) as service:
        (cluster,) = (await ask(service, "/api/v1/openrouter/paused"))["clusters"]
    assert cluster == {"cluster": "production", "last_seen": now, "details": {"paused": 3}}


class TestModels:
    def test_those_that_cool_down_come_first(self) -> None:
        models = {
            "fine": Model(seen_at=NOW_S - 1),
            "older": Model(seen_at=NOW_S - 2, failures=1, failed_at=NOW_S - 3),
            "cooling": Model(seen_at=NOW_S - 9, failures=5, failed_at=NOW_S - 1, reason="timeout"),
        }
        answer = activity.models(Snapshot(None, NOW_S, models=models), Settings("redis://redis"), limit=2)
        assert [(model.model, model.cooling) for model in answer.models] == [("cooling", True), ("fine", False)]
        assert (answer.total, answer.cooling) == (3, 1)
        assert answer.models[0].reason == "timeout"
        assert answer.models[0].retry_at == iso(NOW_S - 1 + Policy().cooldown_s)
        assert (answer.models[1].reason, answer.models[1].retry_at) == (None, None)

    async def test_a_model_that_fails_is_there(
        self, settings: Settings, upstream: FakeUpstream, store: Store
    ) -> None:
        until = round(time.time()) + 60.0
        run = Run(failures=1, until=until, reason="rate_limited")
        async with running(settings, upstream) as service:
            await store.count(Batch(0, "worker1", 1, [], models={"openai/gpt-4o": run}), at=time.time())

            async def listed() -> list[Any]:
                return list((await ask(service, MODELS))["models"])

            (model,) = await eventually(listed)
        assert (model["model"], model["cooling"], model["reason"]) == ("openai/gpt-4o", True, "rate_limited")
        assert (model["retry_at"], model["failures"]) == (iso(until), 1)


async def test_what_redis_will_not_do_is_said_once_and_not_at_each_request(
    settings: Settings, upstream: FakeUpstream, client: aioredis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    await client.set("openrouter:history", "mine")
    async with running(settings, upstream) as service:
        answers = [await service.get(HISTORY) for _ in range(5)]
    assert {(answer.status_code, answer.json()["detail"]) for answer in answers} == {
        (503, "Redis refuses the command; see the service's log")
    }
    assert caplog.text.count("left as it is") == 1


async def test_half_a_character_that_somebody_left_in_redis_hides_nobody(
    settings: Settings, upstream: FakeUpstream, client: aioredis.Redis, store: Store
) -> None:
    now = time.time()
    error = {"timestamp": iso(now), "worker_id": "w\ud83d", "error_type": "timeout", "error_message": "\udcff"}
    await client.lpush(store.keys.worker_errors(now), json.dumps(error))
    await client.hset(store.keys.workers, "fine", json.dumps({"version": "\ud83d", "last_seen": iso(now)}))
    async with running(settings, upstream) as service:
        answer = await ask(service, WORKERS)
    assert {worker["worker_id"]: worker["version"] for worker in answer["workers"]} == {"w?": None, "fine": "?"}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (f"{HISTORY}?limit=0", "limit"),
        (f"{HISTORY}?limit=1001", "limit"),
        (f"{HISTORY}?days=0", "days"),
        (f"{HISTORY}?days=31", "days"),
        (f"{HISTORY}?before=0", "before"),
        (f"{HISTORY}?before={2**64}-0", "before"),
        (f"{WORKERS}?limit=1001", "limit"),
        (f"{MODELS}?limit=-1", "limit"),
        (f"{MODELS}?scope={'a' * 41}", "scope"),
    ],
)
async def test_every_parameter_has_bounds(settings: Settings, upstream: FakeUpstream, path: str, name: str) -> None:
    async with running(settings, upstream) as service:
        answer = await service.get(path)
    assert (answer.status_code, [error["name"] for error in answer.json()["errors"]]) == (422, [name])
