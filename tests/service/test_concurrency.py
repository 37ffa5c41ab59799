"""The service works on a flood of requests a few at a time."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message, Receive, Scope, Send

from openrouter_guard.api.http.concurrency import A_ROUND, AT_A_TIME, WHILE_THERE, ConcurrencyLimit

START: Message = {"type": "http.response.start", "status": 200, "headers": []}


class Work:
    """An app whose requests take until they are told."""

    def __init__(self, *, fails: bool = False) -> None:
        self.begun, self.ended = 0, 0
        self.go, self.end = asyncio.Event(), asyncio.Event()
        self._fails = fails

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.begun += 1
        await self.go.wait()
        if self._fails:
            raise KeyError("a mistake")
        await send(START)
        await self.end.wait()
        self.ended += 1


async def receive() -> Message:
    return {"type": "http.disconnect"}


async def send(_message: Message) -> None:
    pass


def ask(turns: ConcurrencyLimit, path: str, count: int) -> list[asyncio.Task[None]]:
    async def one() -> None:
        await turns({"type": "http", "path": path}, receive, send)

    return [asyncio.create_task(one()) for _ in range(count)]


async def evaluate() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.fixture
async def work() -> Work:
    return Work()


async def test_until_their_answer_begins(work: Work) -> None:
    tasks = ask(ConcurrencyLimit(work, ()), "/slow", 20)
    await evaluate()
    assert work.begun == AT_A_TIME
    work.go.set()
    await evaluate()
    # To send may take as long as the client likes: that holds up nobody.
    assert (work.begun, work.ended) == (20, 0)
    work.end.set()
    await asyncio.gather(*tasks)


async def test_what_is_quick_is_not_held_up(work: Work) -> None:
    turns = ConcurrencyLimit(work, {"/livez"})
    tasks = ask(turns, "/slow", 20) + ask(turns, "/livez", 5)
    await evaluate()
    assert work.begun == AT_A_TIME + 5
    work.go.set()
    work.end.set()
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("quick", [(), ("/any",)], ids=["slow", "quick"])
async def test_a_flood_begins_a_few_in_each_round_of_the_loop_and_a_probe_at_once(quick: tuple[str, ...]) -> None:
    # Of what is answered without a pause all would else be answered before anybody else is heard.
    work = Work()
    work.go.set()
    work.end.set()
    limit = ConcurrencyLimit(work, quick, {"/livez"})
    tasks = ask(limit, "/any", 100)
    for rounds in range(1, 11):
        await asyncio.sleep(0)
        assert 0 < work.begun <= rounds * A_ROUND
    before = work.begun
    tasks += ask(limit, "/livez", 50)
    await asyncio.sleep(0)
    assert before + 50 <= work.begun <= before + 50 + A_ROUND
    for task in tasks[40:60]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert work.ended == 130


async def test_one_that_fails_or_is_cancelled_gives_its_turn_back() -> None:
    work = Work(fails=True)
    turns = ConcurrencyLimit(work, ())
    cancelled, failing = ask(turns, "/slow", AT_A_TIME), ask(turns, "/slow", 20)
    await evaluate()
    for task in cancelled:
        task.cancel()
    work.go.set()
    found = await asyncio.gather(*cancelled, *failing, return_exceptions=True)
    assert [type(each) for each in found] == [asyncio.CancelledError] * AT_A_TIME + [KeyError] * 20
    assert work.begun == AT_A_TIME + 20


async def test_one_that_is_cancelled_between_its_turn_and_its_start_gives_it_back(work: Work) -> None:
    limit = ConcurrencyLimit(work, ())
    begun, waiting = ask(limit, "/slow", AT_A_TIME), ask(limit, "/slow", AT_A_TIME)
    await evaluate()
    work.go.set()
    await asyncio.sleep(0)
    # Each has its turn by now, and has not run since.
    assert (work.begun, len(limit._slots._queue._waiting)) == (AT_A_TIME, 0)
    for task in waiting:
        task.cancel()
    await evaluate()
    work.end.set()
    later = ask(limit, "/slow", 1)
    await asyncio.wait_for(asyncio.gather(*begun, *later), 30)
    assert work.ended == AT_A_TIME + 1


@pytest.mark.parametrize("quick", [(), ("/any",)], ids=["slow", "quick"])
async def test_a_request_whose_client_goes_while_it_waits_never_begins(work: Work, quick: tuple[str, ...]) -> None:
    limit = ConcurrencyLimit(work, quick)
    scope = {"type": "http", "path": "/any", "extensions": {WHILE_THERE: lambda turn: turn.set_result(False)}}
    there = ask(limit, "/any", max(A_ROUND, AT_A_TIME))
    gone = [asyncio.create_task(limit(scope, receive, send)) for _ in range(20)]
    there += ask(limit, "/any", 1)
    await evaluate()
    assert [task for task in gone if not task.done()] == []  # though the first have not ended
    work.go.set()
    work.end.set()
    await asyncio.gather(*there)
    assert work.ended == len(there)
