"""Long polls of the gate on a real socket: clients hang up, and servers stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import pytest

from openrouter_guard.api.status.gate import fingerprint, ramp
from openrouter_guard.replica import Snapshot
from openrouter_guard.rules.breaker import Closed, Open, Policy
from openrouter_guard.rules.override import Override, OverrideKind
from openrouter_guard.rules.shared_state import SharedState, Upstream
from openrouter_guard.settings import FurtherScope, Settings, Thresholds
from openrouter_guard.store import Store
from tests.service.apps import FakeUpstream, eventually, open_breaker
from tests.service.sockets import EVENTS, Listening, listening, watching

pytestmark = pytest.mark.slow

GATE = "/api/v1/openrouter/gate"
NOW_S = 10_000.0
SOON = Policy(first_wait_s=1.0, longest_wait_s=1.0, reset_timeout_s=1.0, jitter=0.0)


def known(answer: httpx.Response) -> dict[str, str]:
    return {"If-None-Match": answer.headers["etag"]}


@asynccontextmanager
async def knowing(settings: Settings, upstream: FakeUpstream) -> AsyncIterator[Listening]:
    """A service whose first check, which is news, is over."""
    async with listening(settings, upstream) as served:
        await eventually(lambda: served.service.view.checked_at)
        yield served


async def waiting(served: Listening, answer: httpx.Response | None, wait: int = 30) -> asyncio.Task[httpx.Response]:
    """A request that waits for another answer than that one."""
    headers = known(answer) if answer else {}
    before = served.service.open_requests.taken
    asking = asyncio.create_task(served.client.get(f"{GATE}?wait={wait}", headers=headers))
    await eventually(lambda: served.service.open_requests.taken > before or asking.done())
    return asking


@pytest.fixture
async def served(settings: Settings, upstream: FakeUpstream) -> AsyncIterator[Listening]:
    async with knowing(replace(settings, policy=SOON), upstream) as served:
        yield served


class TestWhatIsShown:
    @pytest.mark.parametrize(
        ("record", "expected"),
        [
            pytest.param(None, 1.0, id="nothing is known"),
            pytest.param(SharedState(), 1.0, id="closed"),
            pytest.param(SharedState(Closed(since=NOW_S - 4), fleet=7), 0.72, id="just closed: in two digits"),
            pytest.param(SharedState(Closed(since=NOW_S), fleet=9999), 0.0002, id="of a large fleet, never none"),
            pytest.param(SharedState(Open("timeout", 1.0, NOW_S + 9)), 0.0, id="open"),
            pytest.param(SharedState(Open("timeout", 1.0, NOW_S - 9)), 0.0, id="half-open: none without a permit"),
            pytest.param(SharedState(upstream=Upstream(rate_limit_reset_at=NOW_S + 9)), 0.0, id="rate limited"),
            pytest.param(
                SharedState(
                    Open("timeout", 1.0, NOW_S + 9), override=Override(OverrideKind.DISABLED, "a", "b", NOW_S + 9)
                ),
                1.0,
                id="disabled by a person",
            ),
        ],
    )
    def test_how_much_may_go(self, record: SharedState | None, expected: float) -> None:
        assert ramp(Snapshot(record, NOW_S), Policy()) == expected

    def test_the_tag_is_another_one_for_each_change_and_the_same_while_time_passes(self) -> None:
        views = [
            Snapshot(None, NOW_S),
            Snapshot(SharedState(epoch=1), NOW_S),
            Snapshot(SharedState(epoch=2), NOW_S),
            Snapshot(SharedState(Open("timeout", 1.0, NOW_S + 9), epoch=2), NOW_S),
            Snapshot(SharedState(Open("timeout", 1.0, NOW_S + 9), epoch=2), NOW_S + 9),
            Snapshot(SharedState(Open("timeout", 1.0, NOW_S + 9), epoch=3), NOW_S),
            Snapshot(SharedState(Closed(since=NOW_S), fleet=7, epoch=3), NOW_S),
            Snapshot(SharedState(Closed(since=NOW_S), fleet=7, epoch=3), NOW_S + 9),
        ]
        tags = [fingerprint(view, Policy(), "") for view in views]
        assert len(set(tags)) == len(tags)
        assert [fingerprint(replace(view, now=view.now + 0.01), Policy(), "") for view in views[:6]] == tags[:6]


class TestWithoutWaiting:
    async def test_what_the_client_has_is_not_sent_again(self, served: Listening) -> None:
        first = await served.client.get(GATE)
        again = await served.client.get(GATE, headers=known(first))
        assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
        record = served.service.view.record
        assert record is not None
        told = {"permitted": True, "ramp": 1.0, "epoch": record.epoch, "degraded": False, "scope": "default"}
        assert first.json() == told

    async def test_a_refusal_is_sent_each_time(self, served: Listening, store: Store, settings: Settings) -> None:
        await open_breaker(store, settings)

        async def refused() -> httpx.Response | None:
            answer = await served.client.get(GATE)
            return answer if answer.status_code == 503 else None

        first = await eventually(refused)
        again = await served.client.get(GATE, headers=known(first))
        assert (again.status_code, again.headers["etag"]) == (503, first.headers["etag"])


class TestWaiting:
    async def test_an_opening_and_what_follows_are_told_at_once(
        self, served: Listening, store: Store, settings: Settings
    ) -> None:
        free = await served.client.get(GATE)
        asking = await waiting(served, free)
        await asyncio.sleep(0.2)
        assert not asking.done()
        record = await open_breaker(store, replace(settings, policy=SOON))
        began_at = time.monotonic()
        refused = await asyncio.wait_for(asking, 5)
        told_s = time.monotonic() - began_at
        assert (refused.status_code, refused.json()["reason"]) == (503, record.transitions[-1].reason)
        assert told_s < 0.5, "it is a push, and not the next look"
        # Half-open by time alone: nobody tells it, and who waits learns it within the same moment.
        half_open = await asyncio.wait_for(await waiting(served, refused), 5)
        late_s = time.time() - getattr(record.breaker, "until", 0.0)
        assert half_open.json()["reason"] == "half_open"
        assert 0 <= late_s < 0.4

    async def test_who_knows_nothing_waits_for_calls_to_go(
        self, served: Listening, store: Store, settings: Settings
    ) -> None:
        assert (await served.client.get(f"{GATE}?wait=30")).status_code == 200
        await open_breaker(store, replace(settings, policy=SOON))
        await eventually(lambda: served.service.refusal)
        asking = await waiting(served, None)
        await store.change(lambda record, _: record and replace(record, breaker=Closed(), epoch=record.epoch + 1))
        assert (await asyncio.wait_for(asking, 5)).status_code == 200

    @pytest.mark.parametrize("is_open", [False, True])
    async def test_at_the_end_of_the_wait_the_same_is_said_again(
        self, settings: Settings, upstream: FakeUpstream, store: Store, *, is_open: bool
    ) -> None:
        async with knowing(settings, upstream) as served:
            if is_open:
                await open_breaker(store, settings)
                await eventually(lambda: served.service.refusal)
            first, began_at = await served.client.get(GATE), time.monotonic()
            again = await served.client.get(f"{GATE}?wait=1", headers=known(first))
            assert 0.9 < time.monotonic() - began_at < 3
        assert (again.status_code, again.headers["etag"]) == (503 if is_open else 304, first.headers["etag"])

    async def test_how_long_it_waited_is_no_time_that_it_took(self, served: Listening) -> None:
        first = await served.client.get(GATE)
        await served.client.get(f"{GATE}?wait=1", headers=known(first))
        lines = (await served.client.get("/metrics")).text.splitlines()
        (took,) = (line for line in lines if "request_duration_seconds_sum" in line and f'"{GATE}"' in line)
        assert float(took.rpartition(" ")[2]) < 0.5

    @pytest.mark.parametrize("wait", ["-1", "61", "0.5", "nan", "soon"])
    async def test_other_waits_are_refused(self, served: Listening, wait: str) -> None:
        assert (await served.client.get(f"{GATE}?wait={wait}")).status_code == 422


class TestHowMany:
    async def test_streams_and_waits_of_all_scopes_count_together_and_each_refusal_says_so(
        self, settings: Settings, upstream: FakeUpstream
    ) -> None:
        two = replace(settings, further=(FurtherScope("team-a"),), thresholds=Thresholds(max_streams=2))
        async with knowing(two, upstream) as served:
            first = await served.client.get(GATE)
            async with watching(served.client, f"{EVENTS}?scope=team-a") as stream:
                await anext(stream)
                asking = await waiting(served, first)
                waits = await served.client.get(f"{GATE}?wait=30", headers=known(first))
                listens = await served.client.get(EVENTS)
                # Who need not wait is answered, and so are the probes.
                free = await served.client.get(f"{GATE}?wait=30")
                alive = await served.client.get("/livez")
                asking.cancel()
                await eventually(lambda: served.service.open_requests.taken == 1)
            await eventually(lambda: served.service.open_requests.taken == 0)
        assert (waits.status_code, listens.status_code) == (429, 503)
        assert (free.status_code, alive.status_code) == (200, 200)
        for refused in (waits, listens):
            assert "over all scopes" in refused.json()["detail"]
            assert "OPENROUTER_GUARD_MAX_STREAMS" in refused.json()["detail"]
            assert int(refused.headers["retry-after"]) > 0
            assert "openrouter-guard" not in refused.headers

    async def test_at_the_end_of_the_service_all_are_answered_at_once(self, served: Listening) -> None:
        first = await served.client.get(GATE)
        asking = [await waiting(served, first) for _ in range(20)]
        served.server.should_exit, began_at = True, time.monotonic()
        answers = await asyncio.wait_for(asyncio.gather(*asking), 5)
        await asyncio.wait_for(served.task, 5)
        assert time.monotonic() - began_at < 2
        assert {answer.status_code for answer in answers} == {304}
