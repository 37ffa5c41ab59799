"""The store on a real Valkey: counted once, committed once, nothing lost."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from functools import partial

import pytest
import redis.asyncio as aioredis

from openrouter_guard.errors import ConfigurationError, ForeignValue, StoreRefused, StoreUnavailable
from openrouter_guard.rules import evaluation, health_checks, latency, models, transitions, trial_calls
from openrouter_guard.rules.breaker import BreakerState, Closed, Open, Policy
from openrouter_guard.rules.codec import iso
from openrouter_guard.rules.models import Models, Run
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.rules.window import Window
from openrouter_guard.store import Batch, Counted, Store, Timeouts
from tests.existing import ExistingWorker

POLICY = Policy(reset_timeout_s=60)
_seqs = itertools.count(1)


def settle(record: SharedState | None, now: float) -> SharedState | None:
    return record and evaluation.evaluate(record, now=now, policy=POLICY, by="me")


async def count(store: Store, runs: str, *, epoch: int = 0, reporter: str = "wa", seq: int | None = None) -> Counted:
    """Report runs such as "S2 F3"."""
    parsed = [(run[0], int(run[1:])) for run in runs.split()]
    failed = sum(number for kind, number in parsed if kind == "F")
    batch = Batch(epoch, reporter, seq or next(_seqs), parsed, counters={"failed_calls": failed})
    return await store.count(batch, at=time.time())


async def opened(store: Store) -> SharedState:
    await count(store, "F5")
    record = (await store.change(settle)).record
    assert record is not None
    assert isinstance(record.breaker, Open)
    return record


async def expires_an_hour_after_its_end(store: Store, client: aioredis.Redis) -> None:
    seen = await store.read()
    assert seen.record is not None
    assert isinstance(seen.record.breaker, Open)
    left_s = await client.ttl(store.keys.state)
    assert left_s == pytest.approx(3600 + seen.record.breaker.until - seen.now, abs=2)


async def failed_calls(store: Store) -> int:
    days = await store.metrics(1, time.time())
    return sum(int(day["failed_calls"]) for day in days.values())


class TestCounting:
    @pytest.mark.parametrize(
        ("runs", "failures"),
        [
            pytest.param("F3", 3, id="failures add up"),
            pytest.param("F3 S1", 0, id="a success ends the run"),
            pytest.param("S9 F2", 2, id="in their order"),
            pytest.param("F2 S1 F1 S1 F4", 4, id="only what follows the last success counts"),
        ],
    )
    async def test_results_count_in_their_order(self, store: Store, runs: str, failures: int) -> None:
        counted = await count(store, runs)
        assert counted.verdict == "counted"
        assert counted.seen.record is not None
        assert counted.seen.record.breaker.failures == failures

    async def test_the_run_of_failures_knows_its_reporters(self, store: Store) -> None:
        for reporter in ("wa", "wb", "wb", "wc", "wd"):
            counted = await count(store, "F1", reporter=reporter)
        assert counted.seen.record is not None
        assert counted.seen.record.live_reporters == 4
        assert isinstance(counted.seen.record.breaker, Closed)
        # Three are all that any rule asks for.
        assert counted.seen.record.breaker.run == {"wa", "wb", "wc"}

    async def test_refusals_for_want_of_credit_are_counted_apart(self, store: Store) -> None:
        await count(store, "F1 C1", reporter="wa")
        counted = await count(store, "C1", reporter="wb")
        assert counted.seen.record is not None
        assert counted.seen.record.breaker == Closed(3, frozenset({"wa", "wb"}), refusals=2)
        ended = await count(store, "S1")
        assert ended.seen.record is not None
        assert ended.seen.record.breaker == Closed()

    async def test_a_batch_that_is_sent_again_counts_once(self, store: Store) -> None:
        assert (await count(store, "F2", seq=7001)).verdict == "counted"
        again = await count(store, "F2", seq=7001)
        assert again.verdict == "repeated"
        assert again.seen.record is not None
        assert again.seen.record.breaker.failures == 2
        assert await failed_calls(store) == 2

    async def test_it_counts_once_though_its_answer_was_lost_minutes_ago(
        self, store: Store, client: aioredis.Redis
    ) -> None:
        await count(store, "F1", seq=5)
        await client.hset("openrouter:state", "reporters", f"wa:5:{int(time.time()) - 500} ")
        assert (await count(store, "F1", reporter="wb")).verdict == "counted"
        assert (await count(store, "F1", seq=5)).verdict == "repeated"
        assert await failed_calls(store) == 2

    async def test_who_was_silent_for_a_minute_is_no_live_reporter_and_forgotten_after_ten(
        self, store: Store, client: aioredis.Redis
    ) -> None:
        now = int(time.time())
        ring = "".join(f"w{ago_s}:1:{now - ago_s} " for ago_s in (700, 601, 500, 61, 30))
        await client.hset("openrouter:state", "reporters", ring)
        record = (await count(store, "F1", reporter="wa")).seen.record
        assert record is not None
        assert record.live_reporters == 2
        kept = str(await client.hget("openrouter:state", "reporters")).split()
        assert [entry.split(":")[0] for entry in kept] == ["w500", "w61", "w30", "wa"]

    async def test_another_reporters_batch_of_the_same_number_counts(self, store: Store) -> None:
        await count(store, "F1", seq=8001, reporter="wa")
        assert (await count(store, "F1", seq=8001, reporter="wb")).verdict == "counted"

    async def test_results_of_an_earlier_epoch_reach_only_the_metrics(self, store: Store) -> None:
        first = (await count(store, "F1")).seen.record
        assert first is not None
        late = await count(store, "F9", epoch=first.epoch - 1)
        assert late.verdict == "late"
        assert late.seen.record is not None
        assert late.seen.record.breaker.failures == 1
        assert await failed_calls(store) == 10

    async def test_nothing_counts_while_open(self, store: Store) -> None:
        record = await opened(store)
        assert (await count(store, "S1", epoch=record.epoch)).verdict == "late"
        assert (await store.read()).record == record

    async def test_what_is_too_old_reaches_only_the_metrics(self, store: Store) -> None:
        counted = await count(store, "F9", epoch=-1)
        assert counted.verdict == "late"
        assert await failed_calls(store) == 9

    async def test_the_error_log_keeps_the_newest_first(self, store: Store, client: aioredis.Redis) -> None:
        errors = [json.dumps({"n": n}) for n in range(1200)]
        await store.count(Batch(0, "wa", 9001, [("F", 1)], errors=errors), at=time.time())
        kept = await client.lrange(store.keys.worker_errors(time.time()), 0, -1)
        assert len(kept) == 1000
        assert json.loads(kept[0]) == {"n": 1199}

    async def test_a_closed_state_expires_soon_and_an_open_one_an_hour_after_its_end(
        self, store: Store, client: aioredis.Redis
    ) -> None:
        await count(store, "F1")
        assert 0 < await client.ttl(store.keys.state) <= 600
        await opened(store)
        await expires_an_hour_after_its_end(store, client)


class TestSuccessesThatAreToldLate:
    """While all is well a worker need not tell each of its successes at once; they count as if it had."""

    async def told(self, store: Store, ended_at: float) -> int:
        """Failures in a row after a success that ended then."""
        fields = {"state": "active", "last_success": iso(ended_at)}
        batch = Batch(0, "wb", next(_seqs), [("S", 1)], fields, last_success_at=ended_at)
        record = (await store.count(batch, at=ended_at)).seen.record
        assert record is not None
        return record.breaker.failures

    async def failed(self, store: Store, at: float) -> None:
        batch = Batch(0, "wa", next(_seqs), [("F", 2)], {"state": "error"}, first_failure_at=at)
        await store.count(batch, at=at)

    async def test_do_not_end_a_run_that_began_after_them(self, store: Store) -> None:
        now = time.time()
        await self.failed(store, now)
        assert await self.told(store, now - 1.001) == 2
        record = (await store.read()).record
        assert record is not None
        assert record.upstream.state == "error"
        assert record.upstream.last_success_at == pytest.approx(now - 1.001, abs=1e-4)

    async def test_end_a_run_that_began_before_them(self, store: Store) -> None:
        now = time.time()
        await self.failed(store, now - 5)
        assert await self.told(store, now - 4) == 0

    async def test_end_a_run_where_they_ended_only_just_before_it(self, store: Store) -> None:
        now = time.time()
        await self.failed(store, now)
        assert await self.told(store, now - 0.9) == 0

    async def test_leave_the_last_success_as_late_as_it_was(self, store: Store) -> None:
        now = time.time()
        await self.told(store, now)
        await self.told(store, now - 10)
        record = (await store.read()).record
        assert record is not None
        assert record.upstream.last_success_at == pytest.approx(now, abs=1e-4)

    async def test_end_a_run_of_existing_workers_whose_beginning_nobody_knows(
        self, store: Store, client: aioredis.Redis
    ) -> None:
        await client.hset(store.keys.state, "consecutive_failures", "3")
        assert await self.told(store, time.time() - 10) == 0


class TestWhatCountingCosts:
    async def commands(self, client: aioredis.Redis) -> int:
        stats = await client.info("commandstats")
        return sum(each["calls"] for name, each in stats.items() if name not in ("cmdstat_info", "cmdstat_hello"))

    async def test_is_seven_commands_whatever_the_batch_holds(self, store: Store, client: aioredis.Redis) -> None:
        counters = dict.fromkeys((*latency.FIELDS, "total_calls", "successful_calls"), 1)
        fields = {"state": "active", "message": "Service active", "last_success": iso(time.time())}
        spent = []
        for _ in range(2):
            before = await self.commands(client)
            await store.count(Batch(0, "wa", next(_seqs), [("S", 900)], fields, counters), at=time.time())
            spent.append(await self.commands(client) - before)
        # The script itself, TIME, a read and a write of each of two hashes, and the models.
        assert spent[1] == 7

    async def test_a_counter_that_is_no_number_is_left_alone(self, store: Store, client: aioredis.Redis) -> None:
        key = store.keys.metrics(time.time())
        await client.hset(key, mapping={"total_calls": "many", "failed_calls": "2"})
        counters = {"total_calls": 1, "failed_calls": 1}
        await store.count(Batch(0, "wa", next(_seqs), [("F", 1)], counters=counters), at=time.time())
        assert await client.hgetall(key) == {"total_calls": "many", "failed_calls": "3"}

    async def test_counters_expire_with_their_day(self, store: Store, client: aioredis.Redis) -> None:
        for _ in range(2):
            await count(store, "F1")
        assert await client.ttl(store.keys.metrics(time.time())) > 29 * 86_400

    async def test_a_state_that_is_written_all_the_time_does_not_expire(
        self, store: Store, client: aioredis.Redis
    ) -> None:
        await count(store, "S1")
        await client.expire(store.keys.state, 30)
        await count(store, "S1")
        assert await client.ttl(store.keys.state) <= 30
        began = await client.hget(store.keys.state, "calls_since")
        await client.hset(store.keys.state, "calls_since", str(int(began or 0) - 60))
        await count(store, "S1")
        assert await client.ttl(store.keys.state) > 500


class TestSingleModels:
    async def told(self, store: Store, epoch: int = 0, **runs: Run) -> Models:
        counted = await store.count(Batch(epoch, "wa", next(_seqs), (), models=runs), at=time.time())
        assert (await store.read()).models == counted.seen.models
        return counted.seen.models

    async def test_are_counted_as_the_rules_count_them(self, store: Store) -> None:
        expected: Models = {}
        until = round(time.time()) + 500.0
        for run in (Run(failures=2, reason="timeout"), Run(until=until), Run(failures=1), Run(ended=True)):
            found = await self.told(store, slow=run)
            notes = models.Notes(expected, found["slow"].seen_at)
            notes.note("slow", run, found["slow"].seen_at)
            assert found == notes.models
            expected = notes.models

    async def test_the_later_time_wins(self, store: Store) -> None:
        sooner_s, later_s = round(time.time()) + 60.0, round(time.time()) + 600.0
        await self.told(store, slow=Run(until=later_s, reason="rate_limited"))
        found = await self.told(store, slow=Run(until=sooner_s))
        assert (found["slow"].until, found["slow"].reason) == (later_s, "rate_limited")

    async def test_are_forgotten_with_time_but_not_while_they_wait(
        self, store: Store, client: aioredis.Redis
    ) -> None:
        await client.hset(store.keys.models, "old", json.dumps({"seen_s": 1}))
        await client.hset(store.keys.models, "waits", json.dumps({"seen_s": 1, "until_s": time.time() + 600}))
        await client.hset(store.keys.models, "strange", "[]")
        assert set(await self.told(store, fresh=Run(ended=True))) == {"fresh", "waits"}
        assert await client.ttl(store.keys.models) > 25 * 3600

    async def test_what_is_too_old_says_nothing_about_them(self, store: Store) -> None:
        assert await self.told(store, epoch=-1, slow=Run(failures=9)) == {}


class TestTheRateOfCalls:
    async def calls_per_minute(self, store: Store, calls: int) -> float:
        batch = Batch(0, "wa", next(_seqs), [("S", calls)], counters={"total_calls": calls})
        record = (await store.count(batch, at=time.time())).seen.record
        assert record is not None
        return record.calls_per_minute

    async def test_is_not_known_in_the_first_minute(self, store: Store) -> None:
        assert [await self.calls_per_minute(store, 500) for _ in range(3)] == [0, 0, 0]

    @pytest.mark.parametrize(
        ("passed_s", "rate"), [(60, 600), (120, 300), pytest.param(6_000, 6, id="a fleet that slept")]
    )
    async def test_is_what_was_counted_over_the_time(
        self, store: Store, client: aioredis.Redis, passed_s: int, rate: float
    ) -> None:
        await self.calls_per_minute(store, 590)
        began = await client.hget(store.keys.state, "calls_since")
        await client.hset(store.keys.state, "calls_since", str(int(began or 0) - passed_s))
        assert await self.calls_per_minute(store, 10) == pytest.approx(rate, rel=0.05)
        # The next minute begins.
        assert await self.calls_per_minute(store, 10_000) == pytest.approx(rate, rel=0.05)

    async def after(self, store: Store, client: aioredis.Redis, passed_s: float, calls: int) -> float:
        """The rate that is measured once so many calls have ended since its minute began, and that is so long ago."""
        await self.calls_per_minute(store, 0)
        began = await client.hget(store.keys.state, "calls_since")
        await client.hset(store.keys.state, "calls_since", f"{int(began or 0) - passed_s:.0f}")
        return await self.calls_per_minute(store, calls)

    async def test_outlasts_an_outage_in_which_no_call_goes(self, store: Store, client: aioredis.Redis) -> None:
        assert await self.after(store, client, 60, 600) == pytest.approx(600, rel=0.05)
        await count(store, "F9")
        seen = await store.change(settle)
        assert seen.record is not None
        assert isinstance(seen.record.breaker, Open)
        assert await client.hmget(store.keys.state, "calls_since", "calls_counted") == [None, None]
        # A call that was under way ends; then there is a recovery, an hour later by all that was written down.
        assert await self.calls_per_minute(store, 1) == pytest.approx(600, rel=0.05)
        await store.change(lambda record, now: record and transitions.reset(record, by="me", now=now))
        assert await self.calls_per_minute(store, 1) == pytest.approx(600, rel=0.05)
        assert await client.hget(store.keys.state, "calls_counted") == "1"

    @pytest.mark.parametrize(("successes", "failures", "rate"), [(1, 6, 10), (300, 6, 3000), (0, 6, 0)])
    async def test_of_a_fleet_in_its_first_minute_is_that_without_the_failures_that_end_it(
        self, store: Store, client: aioredis.Redis, successes: int, failures: int, rate: float
    ) -> None:
        await self.calls_per_minute(store, successes)
        began = await client.hget(store.keys.state, "calls_since")
        await client.hset(store.keys.state, "calls_since", str(int(began or 0) - 6))
        batch = Batch(0, "wa", next(_seqs), [("F", failures)], counters={"total_calls": failures})
        await store.count(batch, at=time.time())
        record = (await store.change(settle)).record
        assert record is not None
        assert isinstance(record.breaker, Open)
        assert (await self.calls_per_minute(store, 0)) == pytest.approx(rate, rel=0.35)

    async def test_falls_by_half_a_minute_at_the_most(self, store: Store, client: aioredis.Redis) -> None:
        await self.after(store, client, 60, 800)
        assert await self.after(store, client, 60, 10) == pytest.approx(400, rel=0.05)
        assert await self.after(store, client, 120, 10) == pytest.approx(100, rel=0.05)
        assert await self.after(store, client, 60, 900) == pytest.approx(900, rel=0.05)


class TestTheWindow:
    """The calls of the last time, in steps of ten seconds."""

    async def window(self, store: Store, calls: int, failures: int, slow: int, reporter: str = "wa") -> Window:
        batch = Batch(0, reporter, next(_seqs), [("S", 1)], window=(calls, failures, slow, 60))
        record = (await store.count(batch, at=time.time())).seen.record
        assert record is not None
        assert isinstance(record.breaker, Closed)
        return record.breaker.window

    async def aged(self, client: aioredis.Redis, ago_s: int) -> int:
        """Move the last step into the past."""
        text = str(await client.hget("openrouter:state", "window"))
        at = int(text.split(":")[0]) - ago_s
        await client.hset("openrouter:state", "window", f"{at}:{text.partition(':')[2]}")
        return at

    async def test_adds_up_within_a_step(self, store: Store) -> None:
        await self.window(store, 20, 3, 1)
        *_, last = window = await self.window(store, 10, 0, 0)
        assert sum(tally.calls for tally in window) == 30
        assert sum(tally.failures + tally.slow for tally in window) == 4
        assert last.at % 10 == 0

    async def test_keeps_its_steps_apart_and_forgets_what_is_too_long_ago(
        self, store: Store, client: aioredis.Redis
    ) -> None:
        await self.window(store, 5, 1, 0)
        at = await self.aged(client, 30)
        assert [(t.at, t.calls) for t in (await self.window(store, 7, 0, 0))[:1]] == [(at, 5)]
        await self.aged(client, 40)
        assert at not in [tally.at for tally in await self.window(store, 1, 0, 0)]

    async def test_knows_up_to_three_of_those_who_met_failures_or_slow_calls(self, store: Store) -> None:
        for reporter, failures, slow in (
            ("wa", 0, 0),
            ("wb", 1, 0),
            ("wc", 0, 1),
            ("wb", 1, 1),
            ("wd", 1, 0),
            ("we", 1, 0),
        ):
            window = await self.window(store, 1, failures, slow, reporter)
        assert {name for tally in window for name in tally.reporters} >= {"wb", "wc", "wd"}
        assert all(len(tally.reporters) <= 3 and "wa" not in tally.reporters for tally in window)

    async def test_ends_when_the_breaker_opens_and_nothing_is_added_while_it_is(
        self, store: Store, client: aioredis.Redis
    ) -> None:
        await self.window(store, 5, 5, 0)
        await opened(store)
        await store.count(Batch(0, "wa", next(_seqs), [("F", 1)], window=(1, 1, 0, 60)), at=time.time())
        assert await client.hget("openrouter:state", "window") is None

    async def test_is_not_kept_where_nobody_watches_it(self, store: Store, client: aioredis.Redis) -> None:
        await count(store, "F1")
        assert await client.hget("openrouter:state", "window") is None


class TestCommitting:
    async def test_of_many_who_see_the_fifth_failure_one_opens(self, store: Store, redis_url: str) -> None:
        await count(store, "F5")
        others = [Store.from_url(redis_url) for _ in range(20)]
        await asyncio.gather(*(other.change(settle) for other in others))
        await asyncio.gather(*(other.close() for other in others))
        assert [(entry["from"], entry["to"]) for entry in await store.history()] == [("closed", "open")]

    async def test_a_commit_on_a_state_that_changed_is_refused(self, store: Store) -> None:
        await count(store, "F5")
        old = await store.read()
        record = await opened(store)
        assert old.record is not None
        assert not await store.commit(old, replace(old.record, breaker=Closed()))
        assert (await store.read()).record == record

    async def test_a_count_in_between_is_no_conflict_and_is_kept(self, store: Store) -> None:
        await count(store, "F1")
        seen = await store.read()
        await count(store, "F2")
        reserved = health_checks.with_check_slot(seen.record, now=seen.now, slot_s=60, policy=POLICY)
        assert reserved is not None
        assert await store.commit(seen, reserved)
        now = (await store.read()).record
        assert now is not None
        assert now.breaker.failures == 3
        assert now.check_slot_at == pytest.approx(seen.now + 60, abs=1e-3)

    async def test_who_failed_in_between_is_kept_in_the_run(self, store: Store) -> None:
        for reporter in ("wb", "wa"):
            await count(store, "F1", reporter=reporter)
        seen = await store.read()
        await count(store, "F1", reporter="wc")
        reserved = health_checks.with_check_slot(seen.record, now=seen.now, slot_s=60, policy=POLICY)
        assert reserved is not None
        assert await store.commit(seen, reserved)
        now = (await store.read()).record
        assert now is not None
        assert now.breaker.run == {"wa", "wb", "wc"}

    async def test_never_more_permits_than_the_fleet_has(self, store: Store, redis_url: str) -> None:
        quick = Policy(reset_timeout_s=0.001, next_trial_s=0.0)
        await count(store, "F5")
        await store.change(lambda record, now: record and evaluation.evaluate(record, now=now, policy=quick, by="me"))
        await asyncio.sleep(0.01)
        others = [Store.from_url(redis_url) for _ in range(20)]

        def take(owner: str, record: SharedState | None, now: float) -> SharedState | None:
            return record and trial_calls.with_permit(record, owner, now=now, policy=quick)

        took = [other.change(partial(take, f"owner-{number}")) for number, other in enumerate(others)]
        await asyncio.gather(*took)
        await asyncio.gather(*(other.close() for other in others))
        record = (await store.read()).record
        assert record is not None
        assert len(record.breaker.permits) == quick.permits

    async def test_who_listens_is_woken_by_a_transition(self, store: Store) -> None:
        await count(store, "F5")
        async with aclosing(store.listen()) as wakes:
            await anext(wakes)
            await store.change(settle)
            await asyncio.wait_for(anext(wakes), 2)

    @pytest.mark.parametrize(
        ("runs", "pushed"),
        [
            pytest.param(["F1"], 0, id="one failure is nothing"),
            pytest.param(["F1", "S1", "F1", "S1"], 0, id="nor are several that are apart"),
            pytest.param(["F1", "F1", "F1"], 1, id="two in a row are news, once"),
            pytest.param(["S9 F3"], 1, id="in one batch, too"),
        ],
    )
    async def test_who_listens_is_woken_by_the_second_failure_in_a_row(
        self, store: Store, client: aioredis.Redis, runs: list[str], pushed: int
    ) -> None:
        async with client.pubsub(ignore_subscribe_messages=True) as channel:
            await channel.subscribe(store.keys.events)
            assert await channel.get_message(timeout=1) is None
            for batch in runs:
                await count(store, batch)
            await client.publish(store.keys.events, "end")
            heard = [await channel.get_message(timeout=1) for _ in range(pushed + 1)]
        assert [json.loads(message["data"])["breaker"] for message in heard[:-1] if message] == ["closed"] * pushed
        assert heard[-1]
        assert heard[-1]["data"] == "end"

    async def test_who_may_not_push_counts_all_the_same(self, redis_url: str, client: aioredis.Redis) -> None:
        await client.acl_setuser(
            "mute",
            enabled=True,
            passwords=["+secret"],
            keys=["*"],
            channels=["*"],
            categories=["+@all"],
            commands=["-publish"],
        )
        store = Store.from_url(redis_url.replace("redis://", "redis://mute:secret@"))
        assert (await count(store, "F3")).verdict == "counted"
        await store.close()


class TestExistingWriters:
    """They read, decide and write the whole state under a lock, and know neither version nor epoch."""

    @pytest.fixture
    def existing(self, redis_url: str) -> Iterator[ExistingWorker]:
        with ExistingWorker(redis_url) as worker:
            yield worker

    async def test_their_failures_and_ours_add_up(self, store: Store, existing: ExistingWorker) -> None:
        for _ in range(4):
            existing.report_api_error()
        assert (await count(store, "F1")).seen.record is not None
        record = (await store.change(settle)).record
        assert record is not None
        assert record.phase(time.time()) is BreakerState.OPEN
        assert existing.should_skip_api_call()

    async def test_they_are_noticed_and_for_how_long_they_have_been_silent(
        self, store: Store, client: aioredis.Redis, existing: ExistingWorker
    ) -> None:
        fields = {"last_api_call": iso(time.time())}
        counts = [await store.count(Batch(0, "wa", next(_seqs), [("S", 1)], fields), at=0.0) for _ in range(2)]
        existing.report_api_success()
        counts.append(await count(store, "S1"))
        counts.append(await count(store, "S1"))
        assert [counted.older_writer_at for counted in counts[:2]] == [None, None]
        assert all(counted.older_writer_at in (0, 1) for counted in counts[2:])

    async def test_theirs_alone_open_the_breaker_for_us(self, store: Store, existing: ExistingWorker) -> None:
        for _ in range(5):
            existing.report_api_error()
        record = (await store.change(settle)).record
        assert record is not None
        assert isinstance(record.breaker, Open)
        assert len(await store.history()) == 1

    async def test_what_they_opened_is_not_counted_away_before_anybody_looked(
        self, store: Store, existing: ExistingWorker
    ) -> None:
        await count(store, "S1")
        for _ in range(5):
            existing.report_api_error()
        assert (await count(store, "S1")).verdict == "late"
        record = (await store.change(settle)).record
        assert record is not None
        assert isinstance(record.breaker, Open)

    async def test_their_success_does_not_close_early(
        self, store: Store, client: aioredis.Redis, existing: ExistingWorker
    ) -> None:
        record = await opened(store)
        existing.report_api_success()
        after = (await store.change(settle)).record
        assert after is not None
        assert isinstance(after.breaker, Open)
        assert isinstance(record.breaker, Open)
        assert after.breaker.until == record.breaker.until
        assert existing.should_skip_api_call()
        await expires_an_hour_after_its_end(store, client)


class TestWhatCanGoWrong:
    async def test_a_foreign_value_is_left_alone(self, store: Store, client: aioredis.Redis) -> None:
        await client.set(store.keys.state, "mine")
        with pytest.raises(ForeignValue, match="left as it is"):
            await store.read()
        with pytest.raises(ForeignValue):
            await count(store, "F1")
        assert await client.get(store.keys.state) == "mine"

    async def test_scripts_that_redis_forgot_are_sent_again(self, store: Store, client: aioredis.Redis) -> None:
        await count(store, "F1")
        await client.script_flush()
        assert (await count(store, "F1")).verdict == "counted"

    async def test_redis_away_is_said_in_a_line_without_the_password(self) -> None:
        store = Store.from_url("redis://user:hunter2@127.0.0.1:1/0", timeouts=Timeouts(0.2, 0.2))
        with pytest.raises(StoreUnavailable, match=r"Redis at redis://127\.0\.0\.1:1/0 does not answer") as caught:
            await store.read()
        assert "hunter2" not in str(caught.value)
        await store.close()

    async def test_a_wrong_password_is_refused_and_not_away(self, redis_url: str) -> None:
        store = Store.from_url(redis_url.replace("redis://", "redis://nobody:hunter2@"))
        with pytest.raises(StoreRefused, match="refuses the user or password"):
            await store.read()
        await store.close()

    async def test_a_web_server_is_not_redis(self) -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(4096)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await writer.drain()
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()
            store = Store.from_url(f"redis://{host}:{port}/0")
            with pytest.raises(StoreRefused, match=r"the server at redis://.* is not Redis: look at REDIS_URL"):
                await store.read()
            await store.close()

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "localhost:6379",
            "http://localhost",
            "redis://localhost:port/0",
            "redis://[::1",
            "redis://localhost/first",
            pytest.param("redis://:hunter/2@localhost", id="a slash in the password"),
            pytest.param("redis://:x@hunter/hunter@localhost", id="an at sign, too"),
        ],
    )
    def test_a_wrong_address_says_what_to_write(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match=r"REDIS_URL .* write redis://host:6379/0") as caught:
            Store.from_url(url)
        assert "hunter" not in str(caught.value)

    @pytest.mark.parametrize("scope", ["", "Team A", "x" * 41, "a:b", "{a}"])
    def test_a_wrong_scope_says_what_to_write(self, scope: str) -> None:
        with pytest.raises(ConfigurationError, match="a-z, 0-9 and -"):
            Store.from_url("redis://localhost", scope)

    def test_scopes_have_keys_of_their_own_in_one_slot(self) -> None:
        store = Store.from_url("redis://localhost", "team-a")
        assert store.keys.state == "openrouter:{team-a}:state"
        assert store.keys.metrics(0) == "openrouter:{team-a}:metrics:1970-01-01"
