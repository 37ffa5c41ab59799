"""The event stream: its contents, and the independence of its clients."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest

from openrouter_guard.api import server
from openrouter_guard.api.http.open_requests import OpenRequests, TooManyClients
from openrouter_guard.api.scope import event_stream
from openrouter_guard.api.scope.event_stream import Client, EventStream
from openrouter_guard.errors import StoreUnavailable
from openrouter_guard.replica import Snapshot
from openrouter_guard.rules.breaker import Closed, Open
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.rules.transitions import now_open
from openrouter_guard.settings import Settings, Thresholds
from openrouter_guard.store import Store
from tests.service.apps import STATUS, FakeUpstream, eventually, open_breaker, running
from tests.service.sockets import EVENTS, Event, listening, watching

pytestmark = pytest.mark.slow


def hub(record: SharedState, max_clients: int = 10) -> tuple[EventStream, list[Snapshot]]:
    """Events of a view that the test changes, whose status is its reason and age."""
    views = [Snapshot(record, 1000.0)]

    async def news() -> None: ...

    def status(view: Snapshot) -> str:
        reason = getattr(view.record and view.record.breaker, "reason", "")
        return f'{{"reason":"{reason}","age_seconds":{view.now},"models":{{}}}}'

    return EventStream(news, lambda: views[-1], status, OpenRequests(max_clients)), views


def opened(record: SharedState) -> SharedState:
    return now_open(record, "timeout", "worker-a", 1000.0, Settings("redis://redis").policy)


class TestTheHub:
    """Fan-out without a socket."""

    async def test_a_client_begins_with_the_state(self) -> None:
        told = await hub(SharedState(epoch=7))[0].subscribe().next()
        assert told.startswith(b"retry: 2000\n\nevent: state\nid: 7\ndata: {")
        assert told.endswith(b"}\n\n")

    async def test_an_age_that_grows_is_no_news(self) -> None:
        told, views = hub(SharedState(epoch=7))
        client = told.subscribe()
        told.tell()
        assert (await client.next()).count(b"event: state") == 1
        views.append(replace(views[0], now=1001.0))
        told.tell()
        client.end()
        assert await client.next() == b""

    async def test_a_transition_comes_before_the_state_that_it_led_to(self) -> None:
        told, views = hub(SharedState(epoch=7))
        client = told.subscribe()
        told.tell()
        await client.next()
        views.append(replace(views[0], record=opened(SharedState(epoch=7))))
        told.tell()
        transition, state = (await client.next()).decode().strip().split("\n\n")
        assert transition.startswith('event: transition\nid: 8\ndata: {"epoch":8,"from":"closed","to":"open",')
        assert state.startswith('event: state\nid: 8\ndata: {"reason":"timeout"')

    async def test_a_transition_is_told_to_a_client_that_came_before_anything_else_was(self) -> None:
        told, views = hub(SharedState(epoch=7))
        client = told.subscribe()
        await client.next()
        views.append(replace(views[0], record=opened(SharedState(epoch=7))))
        told.tell()
        assert b"event: transition" in await client.next()

    @pytest.mark.parametrize(
        ("before", "transitions"),
        [
            pytest.param(Snapshot(None, 1000.0), 1, id="an empty Redis: the first ever is news"),
            pytest.param(Snapshot(None, 1000.0, StoreUnavailable("away")), 0, id="Redis away: it may be long ago"),
        ],
    )
    async def test_the_first_state_that_is_seen(self, before: Snapshot, transitions: int) -> None:
        told, views = hub(SharedState(epoch=7))
        views.append(before)
        client = told.subscribe()
        await client.next()
        views.append(Snapshot(opened(SharedState(epoch=7)), 1001.0))
        told.tell()
        assert (await client.next()).count(b"event: transition") == transitions

    async def test_news_that_come_while_others_are_told_are_told_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(event_stream, "COALESCE_S", 0.01)
        told, views = hub(SharedState(epoch=7))
        client = told.subscribe()
        await client.next()
        following = asyncio.create_task(told.follow())
        await asyncio.sleep(0)
        views.append(replace(views[0], record=opened(SharedState(epoch=7))))
        await following
        assert b"event: transition" in await client.next()

    async def test_who_comes_back_gets_what_was_missed(self) -> None:
        record = opened(SharedState(epoch=7))
        again = replace(opened(replace(record, breaker=Closed())), epoch=9)
        told = hub(again)[0]
        assert (await told.subscribe(8).next()).count(b"event: transition") == 1
        assert (await told.subscribe(0).next()).count(b"event: transition") == 2
        assert (await told.subscribe().next()).count(b"event: transition") == 0

    async def test_silence_is_a_heartbeat(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(event_stream, "HEARTBEAT_S", 0.01)
        client = hub(SharedState(epoch=7))[0].subscribe()
        await client.next()
        assert await client.next() == b": heartbeat\n\n"

    async def test_a_client_that_takes_nothing_is_dropped_and_the_others_are_not(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        told, views = hub(SharedState(epoch=7))
        slow, quick = told.subscribe(), told.subscribe()
        for number in range(event_stream.BACKLOG + 1):
            await quick.next()
            record = SharedState(breaker=Open(f"reason-{number}", 1.0, 2000.0), epoch=7)
            views.append(replace(views[0], record=record))
            told.tell()
        assert (slow.has_ended, quick.has_ended) == (True, False)
        assert await slow.next() == b""
        assert caplog.text.count("too slow") == 1

    async def test_only_so_many_may_listen(self) -> None:
        told, _ = hub(SharedState(epoch=7), max_clients=2)
        first, _second = told.subscribe(), told.subscribe()
        with pytest.raises(TooManyClients):
            told.subscribe()
        told.leave(first)
        assert isinstance(told.subscribe(), Client)

    async def test_the_end_is_told_and_nobody_may_come(self) -> None:
        told, _ = hub(SharedState(epoch=7))
        client = told.subscribe()
        told.close()
        assert await client.next() == b""
        with pytest.raises(TooManyClients):
            told.subscribe()


class TestTheStream:
    """On a real socket."""

    async def test_the_state_comes_at_once_and_is_that_of_the_status(
        self, settings: Settings, upstream: FakeUpstream
    ) -> None:
        async with listening(settings, upstream) as service:
            status = (await service.client.get(STATUS)).json()
            async with watching(service.client) as stream:
                first = await anext(stream)
        assert (first.name, first.id) == ("state", str(status["circuit_breaker"]["epoch"]))
        ignored = {"age_seconds": 0, "source": "", "cache_hit": True}
        assert first.data | ignored == status | ignored

    async def test_an_opening_reaches_every_client(
        self, settings: Settings, upstream: FakeUpstream, store: Store
    ) -> None:
        async def first_opening(client: httpx.AsyncClient) -> tuple[Event, Event]:
            async with watching(client) as stream:
                await anext(stream)
                ready.append(client)
                found = [event async for event in _until_open(stream)]
            return next(event for event in found if event.name == "transition"), found[-1]

        ready: list[httpx.AsyncClient] = []
        async with listening(settings, upstream) as service:
            await service.client.get(STATUS)
            watchers = [asyncio.create_task(first_opening(service.client)) for _ in range(20)]
            await eventually(lambda: len(ready) == 20)
            record = await open_breaker(store, settings)
            seen = await asyncio.wait_for(asyncio.gather(*watchers), 5)
            await eventually(lambda: service.service.events.clients == 0)
        for transition, state in seen:
            assert transition.id == state.id == str(record.epoch)
            assert (transition.data["from"], transition.data["to"]) == ("closed", "open")
            assert state.data["circuit_breaker"]["state"] == "open"

    async def test_who_says_what_was_seen_last_gets_the_rest(
        self, settings: Settings, upstream: FakeUpstream, store: Store
    ) -> None:
        record = await open_breaker(store, settings)
        async with (
            listening(settings, upstream) as service,
            watching(service.client, Last_Event_ID=str(record.epoch - 1)) as stream,
        ):
            events_ = [await anext(stream), await anext(stream)]
        assert [event.name for event in events_] == ["transition", "state"]

    async def test_too_many_are_told_when_to_come_back(self, settings: Settings, upstream: FakeUpstream) -> None:
        few = replace(settings, thresholds=Thresholds(max_streams=1))
        async with listening(few, upstream) as service:
            async with watching(service.client) as stream:
                await anext(stream)
                refused = await service.client.get(EVENTS)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
            assert "poll /status" in refused.json()["detail"]
            await eventually(lambda: service.service.events.clients == 0)
            async with watching(service.client) as stream:
                assert (await anext(stream)).name == "state"

    async def test_a_client_that_hangs_up_makes_room(self, settings: Settings, upstream: FakeUpstream) -> None:
        async with listening(settings, upstream) as service:
            async with watching(service.client) as stream:
                await anext(stream)
                assert service.service.events.clients == 1
            await eventually(lambda: service.service.events.clients == 0)

    async def test_a_client_that_reads_nothing_makes_room(
        self, settings: Settings, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(event_stream, "SEND_S", 0.1)
        monkeypatch.setattr(server, "DEAF_MS", 500)
        monkeypatch.setattr(event_stream, "HEARTBEAT", b":" + b" " * 1_000_000 + b"\n\n")
        monkeypatch.setattr(event_stream, "HEARTBEAT_S", 0.001)
        async with listening(settings, upstream) as service:
            with socket.create_connection(("127.0.0.1", service.port)) as deaf:
                deaf.sendall(f"GET {EVENTS} HTTP/1.1\r\nHost: service\r\n\r\n".encode())
                await eventually(lambda: service.service.events.clients == 1)
                await eventually(lambda: service.service.events.clients == 0)
                # Nor does its connection stay, with all that waits in it.
                await eventually(lambda: not service.server.server_state.connections)

    async def test_head_is_the_headers_and_no_stream(self, settings: Settings, upstream: FakeUpstream) -> None:
        async with listening(settings, upstream) as service:
            answer = await service.client.head(EVENTS)
            assert service.service.events.clients == 0
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"

    async def test_an_unknown_scope_is_not_found(self, settings: Settings, upstream: FakeUpstream) -> None:
        async with running(settings, upstream) as service:
            assert (await service.get(f"{EVENTS}?scope=other")).status_code == 404


class TestTheEnd:
    async def test_streams_end_at_once_and_requests_in_flight_are_answered(
        self, settings: Settings, upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        upstream.gate.clear()
        before = asyncio.all_tasks()
        async with listening(settings, upstream) as service, watching(service.client) as stream:
            await anext(stream)
            waiting = asyncio.create_task(service.client.get(STATUS))
            await eventually(lambda: upstream.calls and len(service.server.server_state.tasks) == 2)
            service.server.should_exit = True
            rest = [event async for event in stream]
            assert not service.task.done()
            assert service.service.is_ready is False
            upstream.gate.set()
            answer = await waiting
            await asyncio.wait_for(service.task, 5)
        assert (answer.status_code, answer.json()["source"]) == (200, "live")
        assert all(event.name == "state" for event in rest)
        assert asyncio.all_tasks() == before
        assert "Cancel" not in caplog.text
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def _until_open(stream: AsyncIterator[Event]) -> AsyncIterator[Event]:
    async for event in stream:
        yield event
        if event.name == "state" and event.data["circuit_breaker_open"]:
            return
