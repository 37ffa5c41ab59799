"""Permits over HTTP: for single calls, shared with the workers that use the library."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import httpx
import pytest
import redis.asyncio as aioredis

from openrouter_guard import AsyncGuard, CallNotPermitted
from openrouter_guard.rules import shared_state, trial_calls
from openrouter_guard.rules.breaker import Breaker, Closed, Open, Policy
from openrouter_guard.rules.limits import LOOK_S
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.rules.signals import Effect, Signal
from openrouter_guard.settings import Settings
from openrouter_guard.store import Store
from openrouter_guard.tokens import Tokens
from tests.service.apps import STATE, WRITE_TOKEN, FakeUpstream, ask, bearer, eventually, fail, running
from tests.service.sockets import listening

pytestmark = pytest.mark.slow

PREFIX = "/api/v1/openrouter"
PERMITS = f"{PREFIX}/permits"
OK: Mapping[str, Any] = {"success": True}
DOWN: Mapping[str, Any] = {"success": False, "status_code": 503}
LIMITED: Mapping[str, Any] = {"success": False, "status_code": 429, "retry_after_seconds": 60}
PROVIDER_DOWN: Mapping[str, Any] = {**DOWN, "error": {"metadata": {"provider_name": "p"}}}
SHORT = Policy(reset_timeout_s=0.2, max_reset_timeout_s=0.4, ramp_s=0.5, next_trial_s=0.0)


@pytest.fixture
def writable(settings: Settings) -> Settings:
    return replace(settings, tokens=Tokens(write=WRITE_TOKEN), policy=SHORT)


@pytest.fixture
async def service(writable: Settings, upstream: FakeUpstream) -> AsyncIterator[httpx.AsyncClient]:
    async with running(writable, upstream) as service:
        yield service


async def take(service: httpx.AsyncClient, worker_id: str = "go-1", **more: Any) -> httpx.Response:
    return await service.post(PERMITS, json={"worker_id": worker_id, **more}, headers=bearer(WRITE_TOKEN))


async def taken(service: httpx.AsyncClient, **more: Any) -> str:
    answer = await take(service, **more)
    assert answer.status_code == 201, answer.text
    permit: str = answer.json()["permit"]
    return permit


async def renew(service: httpx.AsyncClient, permit: str) -> httpx.Response:
    return await service.put(f"{PERMITS}/{permit}", headers=bearer(WRITE_TOKEN))


async def end(service: httpx.AsyncClient, permit: str, result: Mapping[str, Any] | None = None) -> dict[str, Any]:
    answer = await service.request("DELETE", f"{PERMITS}/{permit}", json=result, headers=bearer(WRITE_TOKEN))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def state(service: httpx.AsyncClient) -> str:
    found: str = (await ask(service))["circuit_breaker"]["state"]
    return found


async def half_open(service: httpx.AsyncClient, store: Store) -> None:
    for number in range(3):
        await fail(store, 2, reporter=f"worker{number}")

    await until_half_open(service, store)


async def until_half_open(service: httpx.AsyncClient, store: Store) -> None:
    async def is_so() -> bool:
        # What is shown before it is committed begins anew with the commit.
        record = (await store.read()).record
        is_committed = record is not None and isinstance(record.breaker, Open)
        return is_committed and await state(service) == "half_open"

    await eventually(is_so)


class TestWhileClosed:
    async def test_calls_need_none_and_are_told_their_epoch(self, service: httpx.AsyncClient, store: Store) -> None:
        await fail(store, 1)

        async def is_known() -> Any:
            return (await ask(service))["circuit_breaker"]["epoch"]

        epoch = await eventually(is_known)
        answer = await take(service)
        assert (answer.status_code, answer.json()) == (
            200,
            {"permit": None, "lease_seconds": None, "ramp": 1.0, "epoch": epoch},
        )

    async def test_just_after_an_outage_the_answer_says_how_many_may_go(
        self, service: httpx.AsyncClient, store: Store
    ) -> None:
        for number in range(8):
            await fail(store, 1, reporter=f"worker{number}")

        await until_half_open(service, store)
        await end(service, await taken(service), OK)
        answer = (await take(service)).json()
        assert answer["permit"] is None
        assert 0.2 < answer["ramp"] < 1


class TestWhileOpen:
    async def test_calls_wait_as_long_as_the_gate_says(
        self, settings: Settings, upstream: FakeUpstream, store: Store
    ) -> None:
        writable = replace(settings, tokens=Tokens(write=WRITE_TOKEN))
        async with running(writable, upstream) as service:
            await fail(store, 5)

            async def refused() -> Any:
                answer = await take(service)
                return answer if answer.status_code == 503 else None

            answer = await eventually(refused)
            gate = await service.get(f"{PREFIX}/gate")
        assert answer.json()["reason"] == gate.json()["reason"]
        assert answer.headers["openrouter-guard"] == gate.headers["openrouter-guard"]
        assert abs(int(answer.headers["retry-after"]) - int(gate.headers["retry-after"])) <= 1

    async def test_a_model_that_cools_down_waits_alone(self, service: httpx.AsyncClient) -> None:
        results = [{**OK, "model": "c/d"}, *[{**PROVIDER_DOWN, "model": "a/b"}] * 5]
        body = {"worker_id": "go-1", "results": results}
        await service.post(f"{PREFIX}/reports", json=body, headers=bearer(WRITE_TOKEN))
        assert (await take(service, model="a/b")).status_code == 503
        assert (await take(service, model="c/d")).status_code == 200


class TestWhileHalfOpen:
    async def test_a_success_closes_the_breaker(self, service: httpx.AsyncClient, store: Store) -> None:
        await half_open(service, store)
        answer = await take(service, model="a/b")
        assert answer.status_code == 201
        assert answer.json()["lease_seconds"] == 15.0
        done = await end(service, answer.json()["permit"], OK)
        assert (done["verdict"], done["circuit_breaker"]["state"]) == ("settled", "closed")
        assert done["circuit_breaker"]["epoch"] == answer.json()["epoch"] + 1
        newest, *_ = await store.history()
        assert (newest["reason"], newest["by"].partition("/")[0]) == ("trial_succeeded", "go-1")

    async def test_a_failure_opens_it_again(self, service: httpx.AsyncClient, store: Store) -> None:
        await half_open(service, store)
        done = await end(service, await taken(service), DOWN)
        assert (done["verdict"], done["circuit_breaker"]["state"]) == ("settled", "open")
        assert done["retry_after_seconds"] > 0

    @pytest.mark.parametrize(
        "result",
        [
            pytest.param(None, id="no call was made"),
            pytest.param({"success": False, "status_code": 400}, id="the caller's mistake"),
            pytest.param(PROVIDER_DOWN, id="one model's provider"),
        ],
    )
    async def test_what_says_nothing_gives_it_back(
        self, service: httpx.AsyncClient, store: Store, result: Mapping[str, Any] | None
    ) -> None:
        others = {"worker_id": "go-2", "results": [{**OK, "model": "c/d"}]}
        await service.post(f"{PREFIX}/reports", json=others, headers=bearer(WRITE_TOKEN))
        await half_open(service, store)
        for _ in range(4):
            done = await end(service, await taken(service, model="a/b"), result)
            assert (done["verdict"], done["circuit_breaker"]["state"]) == ("returned", "half_open")

    async def test_a_rate_limit_makes_all_wait_and_decides_nothing(
        self, service: httpx.AsyncClient, store: Store
    ) -> None:
        await half_open(service, store)
        done = await end(service, await taken(service), LIMITED)
        assert (done["verdict"], done["circuit_breaker"]["state"]) == ("returned", "half_open")
        assert done["retry_after_seconds"] == pytest.approx(60, abs=2)
        assert (await take(service)).status_code == 503

    async def test_there_are_two_and_then_one_is_told_to_come_back_soon(
        self, service: httpx.AsyncClient, store: Store
    ) -> None:
        await half_open(service, store)
        first, _ = await taken(service), await taken(service)
        answer = await take(service)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.headers["openrouter-guard"] == "refused; reason=half_open"
        await end(service, first)
        assert (await take(service)).status_code == 201

    async def test_one_that_is_renewed_is_kept_and_one_whose_holder_is_lost_is_free_after_its_lease(
        self, writable: Settings, upstream: FakeUpstream, store: Store
    ) -> None:
        quick = replace(writable, policy=replace(SHORT, permits=1, permit_lease_s=0.4))
        async with running(quick, upstream) as service:
            await half_open(service, store)
            permit = await taken(service)
            until = time.monotonic() + 1.2
            while time.monotonic() < until:
                assert (await renew(service, permit)).status_code == 200
                assert (await take(service)).status_code == 503
                await asyncio.sleep(0.1)

            async def is_free() -> bool:
                return (await take(service)).status_code == 201

            await eventually(is_free, seconds=2)
            assert (await renew(service, permit)).status_code == 410
            assert (await end(service, permit, DOWN))["verdict"] == "late"
            assert await state(service) == "half_open"

    async def test_one_whose_call_takes_longer_than_any_may_is_renewed_no_more(
        self, writable: Settings, upstream: FakeUpstream, store: Store
    ) -> None:
        async with running(replace(writable, policy=replace(SHORT, trial_call_s=1.0)), upstream) as service:
            await half_open(service, store)
            permit = await taken(service)
            assert (await renew(service, permit)).status_code == 200

            async def is_gone() -> bool:
                return (await renew(service, permit)).status_code == 410

            await eventually(is_gone)

    async def test_the_result_reaches_a_server_on_a_port_as_well(
        self, writable: Settings, upstream: FakeUpstream, store: Store
    ) -> None:
        async with listening(writable, upstream) as served:
            await half_open(served.client, store)
            done = await end(served.client, await taken(served.client), OK)
        assert (done["verdict"], done["circuit_breaker"]["state"]) == ("settled", "closed")

    async def test_any_replica_takes_it_back(self, writable: Settings, upstream: FakeUpstream, store: Store) -> None:
        async with AsyncExitStack() as stack:
            one, other = [await stack.enter_async_context(running(writable, upstream)) for _ in range(2)]
            await half_open(one, store)
            permit = await taken(one)
            assert (await renew(other, permit)).status_code == 200
            assert (await end(other, permit, OK))["verdict"] == "settled"

    async def test_what_its_call_came_to_is_in_the_metrics(self, service: httpx.AsyncClient, store: Store) -> None:
        await half_open(service, store)
        await end(service, await taken(service), {**OK, "took_seconds": 2.0})
        (day,) = (await store.metrics(1, time.time())).values()
        assert (day["total_calls"], day["successful_calls"]) == ("1", "1")


class TestAReturnThatIsRepeated:
    """The client has not seen the answer, and sends the same result again."""

    @pytest.mark.parametrize("result", [OK, DOWN, LIMITED], ids=["a success", "a failure", "a rate limit"])
    async def test_of_a_trial_call_decides_nothing_more(
        self, service: httpx.AsyncClient, store: Store, result: Mapping[str, Any]
    ) -> None:
        await half_open(service, store)
        permit = await taken(service)
        first = await end(service, permit, result)
        before = await breaker_of(store)
        assert (await end(service, permit, result))["verdict"] == "late"
        assert first["verdict"] != "late"
        assert await breaker_of(store) == before

    async def test_of_the_call_that_tests_a_long_limit_counts_one_failure(
        self, service: httpx.AsyncClient, store: Store
    ) -> None:
        await store.change(due_for_a_test)

        async def granted() -> str | None:
            answer = await take(service)
            return answer.json()["permit"] if answer.status_code == 201 else None

        permit = await eventually(granted)
        for expected in ("settled", "late", "late"):
            assert (await end(service, permit, DOWN))["verdict"] == expected
            breaker = await breaker_of(store)
            assert isinstance(breaker, Closed)
            assert breaker.failures == 1


async def breaker_of(store: Store) -> Breaker:
    record = (await store.read()).record
    assert record is not None
    return record.breaker


def due_for_a_test(record: SharedState | None, now: float) -> SharedState:
    """A limit of a day, by two workers; its first test is due."""
    record = record or shared_state.fresh(now)
    for by in ("w1", "w2"):
        record = trial_calls.limited(record, Signal(Effect.RATE_LIMIT, wait_s=86_400.0), now - LOOK_S, by=by)
    return record


class TestIds:
    async def test_nothing_that_is_shown_is_an_id(
        self, service: httpx.AsyncClient, store: Store, client: aioredis.Redis
    ) -> None:
        await half_open(service, store)
        permit = await taken(service)
        secret = permit.partition(".")[2]
        assert len(secret) >= 24
        shown = [(await service.get(f"{PREFIX}/{name}")).text for name in ("status", "history", "workers")]
        shown.append(json.dumps(await client.hgetall(STATE)))
        assert not [text for text in shown if secret in text]
        # Nor does the holder's name, which the history shows, let anybody else end its call.
        owner = next(iter(json.loads(await client.hget(STATE, "permits") or "{}")))
        for guess in (owner.partition("/")[2], owner, f"{permit}x", permit[:-1], f"{permit.partition('.')[0]}.x"):
            answer = await service.delete(
                f"{PERMITS}/{re.sub('[^A-Za-z0-9._-]', '', guess)}", headers=bearer(WRITE_TOKEN)
            )
            assert answer.status_code == 410 or answer.json()["verdict"] == "late"
        assert (await renew(service, permit)).status_code == 200

    @pytest.mark.parametrize("guess", ["x", "e30.x", "WzEsMiwzLDRd.x", "%C3%BC", "..", "W10", "a" * 1900])
    async def test_what_is_none_is_gone(self, service: httpx.AsyncClient, guess: str) -> None:
        for method in ("PUT", "DELETE"):
            answer = await service.request(method, f"{PERMITS}/{guess}", headers=bearer(WRITE_TOKEN))
            assert answer.status_code in ({405, 404} if guess == ".." else {410})

    async def test_two_workers_of_one_name_do_not_end_each_others_calls(
        self, service: httpx.AsyncClient, store: Store
    ) -> None:
        await half_open(service, store)
        first, second = await taken(service), await taken(service)
        assert first != second
        assert (await end(service, first))["verdict"] == "returned"
        assert (await renew(service, second)).status_code == 200

    async def test_odd_names_of_workers_and_models_are_held_too(
        self, service: httpx.AsyncClient, store: Store
    ) -> None:
        await half_open(service, store)
        permit = await taken(service, worker_id='a/"b\\' + "c" * 95, model="ü/😀 " * 100)
        assert (await renew(service, permit)).status_code == 200
        assert (await end(service, permit, OK))["verdict"] == "settled"


class TestRedisAway:
    async def test_calls_go_as_the_gate_lets_them(self, upstream: FakeUpstream) -> None:
        away = Settings("redis://127.0.0.1:1/0", tokens=Tokens(write=WRITE_TOKEN))
        async with running(away, upstream) as service:
            assert (await take(service)).json()["permit"] is None
            answer = await service.delete(f"{PERMITS}/WyJhIiwiIiwwLDBd.x", headers=bearer(WRITE_TOKEN))
            assert answer.status_code == 503


class _Out:
    """How many trial calls are out, of all workers."""

    def __init__(self) -> None:
        self.now = self.most = self.calls = 0

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        self.now += 1
        self.calls += 1
        self.most = max(self.most, self.now)
        try:
            yield
        finally:
            self.now -= 1


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("permits", [1, 2, 3])
async def test_no_more_than_so_many_are_out_over_http_and_library_together(
    writable: Settings, upstream: FakeUpstream, store: Store, permits: int, seed: int
) -> None:
    """Whoever asks how often, gives back or is lost: seeds draw who does what, and for how long."""
    settings, out = replace(writable, policy=replace(SHORT, permits=permits)), _Out()

    async def over_http(service: httpx.AsyncClient, check_availability: random.Random) -> None:
        while out.calls < 15 * permits:
            answer = await take(service)
            if answer.status_code == 201:
                async with out.one():
                    await asyncio.sleep(check_availability.uniform(0, 0.03))
                    if check_availability.random() < 0.3:
                        assert (await renew(service, answer.json()["permit"])).status_code == 200
                await end(
                    service, answer.json()["permit"], check_availability.choice([None, {**DOWN, "status_code": 400}])
                )
            await asyncio.sleep(check_availability.uniform(0, 0.02))

    async def in_library(guard: AsyncGuard, check_availability: random.Random) -> None:
        while out.calls < 15 * permits:
            with suppress(CallNotPermitted):
                async with guard.call() as call, out.one():
                    await asyncio.sleep(check_availability.uniform(0, 0.03))
                    call.answered(400)
            await asyncio.sleep(check_availability.uniform(0, 0.02))

    async with AsyncExitStack() as stack:
        services = [await stack.enter_async_context(running(settings, upstream)) for _ in range(2)]
        guards = [await stack.enter_async_context(AsyncGuard(settings)) for _ in range(2)]
        for guard in guards:
            async with guard.call() as call:
                call.answered(400)
        await half_open(services[0], store)
        asking = [over_http(each, random.Random(f"{seed} http {n}")) for n, each in enumerate(services * 3)]
        asking += [in_library(each, random.Random(f"{seed} guard {n}")) for n, each in enumerate(guards * 3)]
        await asyncio.gather(*asking)
        assert await state(services[0]) == "half_open"
    assert 0 < out.most <= permits
