"""The counting script on a damaged hash: it reads what Python reads, counts, and heals."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Mapping
from typing import Any

import pytest
import redis.asyncio as aioredis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from openrouter_guard.rules import evaluation, models, transitions, trial_calls
from openrouter_guard.rules.breaker import Closed, HalfOpen, Policy
from openrouter_guard.rules.codec import iso, parse
from openrouter_guard.rules.models import Model, Notes, Run, model_of
from openrouter_guard.rules.override import Override, OverrideKind
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.rules.signals import SUCCESS
from openrouter_guard.store import Batch, Counted, Store
from openrouter_guard.store.scripts import LIMITS
from tests.rules.memory import FAILURE, REFUSAL

pytestmark = pytest.mark.slow

SIGNALS = {"S": SUCCESS, "F": FAILURE, "C": REFUSAL}
NO_COUNTS = ("nan", "1e400", "-1000000", "0x10", "inf", "9" * 400, "1.5")
YEAR_S = 365 * 86_400
_seqs = itertools.count(1)


async def count(store: Store, *runs: tuple[str, int], epoch: int = 0, **more: object) -> Counted:
    batch = Batch(epoch, "wa", next(_seqs), runs, counters={"total_calls": 1}, **more)  # type: ignore[arg-type]
    return await store.count(batch, at=time.time())


async def damage(client: aioredis.Redis, fields: Mapping[str, str]) -> None:
    texts: dict[Any, Any] = {name: text.encode(errors="replace") for name, text in fields.items()}
    if texts:
        await client.hset("openrouter:state", mapping=texts)


async def failures(store: Store, times: int = 1) -> int:
    """In a row, after so many more."""
    record = (await count(store, ("F", times))).seen.record
    assert record is not None
    assert isinstance(record.breaker, Closed)
    assert "wa" in record.breaker.run
    assert record.live_reporters == 1
    return record.breaker.failures


def ring(*entries: str) -> str:
    return "".join(f"{entry} " for entry in entries)


class TestOneDamagedField:
    """Costs that field, and is well again after the count."""

    @pytest.mark.parametrize(
        "fields",
        [
            *(
                {"consecutive_failures": text}
                for text in ("nan", "1e400", "-1000000", "0x10", "inf", "9" * 400, "1.5")
            ),
            *({"run": text, "consecutive_failures": "0"} for text in ("\x00", "a b c d", "a " * 9_999)),
            *(
                {"run_shares": text}
                for text in ("nan", "wa:nan", "wa:1e400", "wa:-5", "wb:9" * 9_999, "wb:999999999999", "wa:9 wa:9")
            ),
            *({"reporters": text} for text in ("w1:xx:yy ", "x", " " * 999, ":: :: ", "w1:1:1e400 ", "w1:1 ")),
            {"reporters": ring(*(f"w{n}:{n}:99999999999" for n in range(3_000)))},
            {"reporters": ring(f"wa:{'9' * 300}:1")},
            *({"calls_counted": text, "calls_since": text} for text in ("nan", "1e400", "-5", "99999999999999", "x")),
            *({"run_since": text} for text in ("nan", "inf", "1e400", "-1", "0x7fffffff")),
            {"credit_refusals": "1e400"},
            *({"window": text} for text in ("nan", "1:2:3", "9" * 5_000, "1e9:1:1:1:a", "0:0:0:0:,,,")),
            *({"override": text} for text in ("[" * 5_000, '{"kind": "disabled"}', "nan", '"disabled"', "\x00")),
            {"override": json.dumps({"kind": "disabled", "until": 2**62})},
            {"override": json.dumps({"kind": "forced_closed", "who": "disabled", "until": 2**62})},
            *({"older_writer": text, "counted_call": text} for text in ("nan", "1e400", "99999999999")),
            *({"epoch": text} for text in ("nan", "x", "1e400", "9007199254740992", "-1", "0x10")),
            {"breaker": "ajar"},
            {"circuit_breaker_open": "nan"},
        ],
        ids=lambda fields: " ".join(f"{name}={text[:20]!r}" for name, text in fields.items()),
    )
    async def test_leaves_the_count_right(
        self, store: Store, client: aioredis.Redis, fields: Mapping[str, str]
    ) -> None:
        await damage(client, fields)
        assert await failures(store) == 1
        assert await failures(store, 2) == 3
        record = (await count(store, ("S", 1))).seen.record
        assert record is not None
        assert record.breaker.failures == 0
        # An epoch is never far ahead, and above 0 once something was counted.
        assert 0 < record.epoch <= (time.time() + LIMITS["epoch_ahead_s"]) * 1000
        assert record.calls_per_minute >= 0

    async def test_that_is_the_epoch_of_a_batch_is_none(self, store: Store) -> None:
        record = (await count(store, ("F", 1), epoch=2**53 - 1)).seen.record
        assert record is not None
        assert record.epoch <= (time.time() + 1) * 1000

    async def test_that_is_a_time_of_the_future_is_overwritten(self, store: Store, client: aioredis.Redis) -> None:
        ahead = iso(time.time() + YEAR_S)
        await client.hset(store.keys.state, mapping={"last_success": ahead, "last_api_call": "zzzz+00:00"})
        now = iso(time.time())
        await count(store, ("S", 1), fields={"last_success": now, "last_api_call": now}, last_success_at=time.time())
        assert await client.hmget(store.keys.state, "last_success", "last_api_call") == [now, now]

    async def test_that_is_a_counter_is_left_alone_and_the_others_count(
        self, store: Store, client: aioredis.Redis
    ) -> None:
        key = store.keys.metrics(time.time())
        damaged: dict[Any, Any] = {"a": "nan", "b": "1e400", "c": "0x10", "d": "1.5", "e": "9" * 400, "f": ""}
        await client.hset(key, mapping={**damaged, "total_calls": "-2"})
        batch = Batch(0, "wa", next(_seqs), [("F", 1)], counters={**dict.fromkeys(damaged, 1), "total_calls": 5})
        await store.count(batch, at=time.time())
        assert await client.hgetall(key) == {**damaged, "total_calls": "3"}

    async def test_that_is_an_entry_of_the_ring_keeps_the_others(self, store: Store, client: aioredis.Redis) -> None:
        now = int(time.time())
        text = ring(f"w1:5:{now - 300}", "w2:xx:yy", f"w3:7:{now - 20}", f"w4:9:{now + YEAR_S}")
        await client.hset(store.keys.state, "reporters", text)
        record = (await count(store, ("F", 1))).seen.record
        assert record is not None
        assert record.live_reporters == 2
        kept = str(await client.hget(store.keys.state, "reporters")).split()
        assert [entry.split(":")[0] for entry in kept] == ["w1", "w3", "wa"]


numbers = st.one_of(
    st.sampled_from(["nan", "inf", "1e400", "-1000000", "0x10", "007", " 7", "7.0", "", "9" * 15, "9" * 16, "true"]),
    st.integers(-5, 10**10).map(str),
    st.floats().map(str),
    st.text(max_size=6),
)
words = st.one_of(st.sampled_from(["open", "closed", "half_open", "True", "false", "w1 w2", ""]), st.text(max_size=6))
overrides = st.builds(
    lambda kind, until: json.dumps({"kind": kind, "who": "a", "why": "b", "until": until}),
    st.sampled_from([*OverrideKind, "", 7, None]),
    st.sampled_from(
        [0, -1, 2**62, "nan", None, [], True, time.time() - 9, time.time() + 9_999, time.time() + YEAR_S]
    ),
)
hashes = st.fixed_dictionaries(
    {},
    optional={
        "consecutive_failures": numbers,
        "credit_refusals": numbers,
        "run": words,
        "breaker": words,
        "circuit_breaker_open": words,
        "epoch": numbers | st.just(str(int(time.time() * 1000))),
        "override": overrides | words,
        "window": words,
        "reporters": words,
        "calls_counted": numbers,
        "calls_since": numbers,
        "run_since": numbers,
        "older_writer": numbers,
        "live_reporters": numbers,
    },
)
runs_of = st.lists(st.tuples(st.sampled_from("SFC"), st.integers(1, 3)), min_size=1, max_size=3)


def expected_of(fields: Mapping[str, str], runs: list[tuple[str, int]], epoch: int) -> tuple[str, int, int]:
    """By the rules in Python: what becomes of a batch, the failures in a row after it, and the refusals."""
    record = parse(fields, time.time())
    is_flagged = fields.get("circuit_breaker_open", "").lower() == "true"
    is_overridden = record.override is not None and record.override.kind is not OverrideKind.FORCED_CLOSED
    is_late = not isinstance(record.breaker, Closed) or is_flagged or is_overridden
    if is_late or (epoch and record.epoch not in (0, epoch)):
        return "late", record.breaker.failures, getattr(record.breaker, "refusals", 0)
    for kind, number in runs:
        for _ in range(number):
            record = evaluation.counted(record, SIGNALS[kind], "wa")
    assert isinstance(record.breaker, Closed)
    return "counted", record.breaker.failures, record.breaker.refusals


@given(fields=hashes, runs=runs_of, epoch=st.sampled_from([0, 0, 7]))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_the_script_decides_as_python_does_on_the_same_hash(
    store: Store, client: aioredis.Redis, fields: dict[str, str], runs: list[tuple[str, int]], epoch: int
) -> None:
    await client.flushall()
    fields = {name: text.encode(errors="replace").decode() for name, text in fields.items()}
    await damage(client, fields)
    counted = await count(store, *runs, epoch=epoch)
    record = counted.seen.record
    assert record is not None
    found = (counted.verdict, record.breaker.failures, getattr(record.breaker, "refusals", 0))
    assert found == expected_of(fields, runs, epoch)
    assert record.live_reporters == 1
    if counted.verdict == "counted":
        assert record.epoch
        assert isinstance(record.breaker, Closed)
        assert not record.breaker.failures or "wa" in record.breaker.run or len(record.breaker.run) == 3


values = st.one_of(
    numbers,
    numbers.map(lambda text: json.dumps(text)),
    st.just("null"),
    st.floats(time.time() - YEAR_S, time.time() + YEAR_S).map(lambda at: f"{at:.3f}"),
    st.sampled_from(['"timeout"', '"' + "x" * 65 + '"', "[]", '{"a": 1}', "1767225600000"]),
)
entries = st.one_of(
    st.dictionaries(st.sampled_from(["seen_s", "failures", "failed_s", "until_s", "reason", "other"]), values).map(
        lambda row: "{" + ", ".join(f'"{name}": {value}' for name, value in row.items()) + "}"
    ),
    st.text(max_size=20),
    st.sampled_from(["[" * 2_000, '{"failures":' * 300, '{"failures": 5}' + " " * 4_000, "", "[]", "1"]),
)


@given(entry=entries, run=st.sampled_from([Run(failures=1), Run(ended=True), Run(reason="timeout", failures=2)]))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(entry='{"failures": 1000000}', run=Run(failures=1))
async def test_the_script_reads_a_model_as_python_does(
    store: Store, client: aioredis.Redis, entry: str, run: Run
) -> None:
    await client.flushall()
    entry = entry.encode(errors="replace").decode()
    await client.hset(store.keys.models, "a/b", entry)
    seen = (await count(store, models={"a/b": run})).seen
    notes = Notes({"a/b": model_of(entry, seen.now)}, seen.now)
    notes.note("a/b", run, int(seen.now))
    assert about(seen.models["a/b"]) == about(notes.models["a/b"])


def about(model: Model) -> tuple[object, ...]:
    times = (round(at, 2) for at in (model.seen_at, model.failed_at, model.until))
    return model.failures, model.reason, *map(pytest.approx, times)


class TestTextThatIsNone:
    """Half a character, as a name cut in the middle or a variable of the environment may have it."""

    HALF = "half \ud83d"

    async def test_reaches_redis_as_a_question_mark(self, store: Store, client: aioredis.Redis) -> None:
        run = Run(failures=1, reason=self.HALF)
        batch = Batch(0, "wa", 1, [("F", 1)], {"message": self.HALF}, {}, [self.HALF], {self.HALF: run})
        assert (await store.count(batch, at=time.time())).verdict == "counted"
        until = time.time() + 60
        override = Override(OverrideKind.FORCED_CLOSED, self.HALF, self.HALF, until)
        await store.change(lambda record, _: record and transitions.overridden(record, override, time.time()))
        await store.heartbeat(self.HALF, {"version": self.HALF, "last_seen": iso(time.time())})
        await store.tell_paused(self.HALF, {"last_seen": iso(time.time())})
        seen = await store.read()
        assert seen.record is not None
        assert seen.record.upstream.message == "half ?"
        assert seen.record.override == Override(OverrideKind.FORCED_CLOSED, "half ?", "half ?", until)
        assert list(seen.models) == list(await store.workers()) == list(await store.paused()) == ["half ?"]
        assert await client.lrange(store.keys.worker_errors(time.time()), 0, -1) == ["half ?"]


class TestManyModels:
    """Names come from users: there may be any number."""

    async def write(self, client: aioredis.Redis, number: int, ago_s: int, **more: float) -> None:
        entry = json.dumps({"failures": 0, "until_s": 0, "seen_s": int(time.time()) - ago_s, **more})
        async with client.pipeline() as pipe:
            for n in range(number):
                pipe.hset("openrouter:models", f"user-{ago_s}-{n}/model", entry)
            await pipe.execute()

    @pytest.mark.parametrize("number", [9_000, 30_000])
    async def test_that_nobody_calls_any_more_are_forgotten_a_few_at_a_time(
        self, store: Store, client: aioredis.Redis, number: int
    ) -> None:
        await self.write(client, number, ago_s=700)
        waits_s = time.time() + 600
        await self.write(client, 1, ago_s=701, until_s=waits_s)
        left = [await client.hlen(store.keys.models)]
        while left[-1] > models.KEPT:
            assert (await count(store, ("S", 1))).verdict == "counted"
            left.append(await client.hlen(store.keys.models))
            assert left[-2] - left[-1] <= 2_000
        assert len(left) <= number // 1_500 + 2
        seen = (await count(store, models={"new": Run(ended=True)})).seen
        assert set(seen.models) == {"new", "user-701-0/model"}
        assert await client.hlen(store.keys.models) == 2

    async def test_are_kept_if_they_wait_then_if_they_fail_then_the_latest_seen(
        self, store: Store, client: aioredis.Redis
    ) -> None:
        now = time.time()
        await self.write(client, 100, ago_s=20, until_s=now + 60)
        await self.write(client, 600, ago_s=10, failures=1, failed_s=int(now) - 10)
        await self.write(client, 300, ago_s=4)
        await self.write(client, 10, ago_s=3)
        seen = (await count(store, models={"new": Run(ended=True)})).seen
        assert await client.hlen(store.keys.models) == len(seen.models)
        assert (await store.read()).models == seen.models
        kept = [sum(name.startswith(f"user-{ago_s}-") for name in seen.models) for ago_s in (20, 10, 4, 3)]
        # A tenth of the room is left for those that fail next.
        failing = int(0.9 * (models.KEPT - models.FINE_KEPT)) - 100
        assert kept == [100, failing, models.FINE_KEPT - 11, 10]
        assert "new" in seen.models

    async def test_all_fail_in_one_batch(self, store: Store, client: aioredis.Redis) -> None:
        failing = {f"m{n}": Run(failures=1) for n in range(10_000)}
        seen = (await count(store, ("F", 1), models=failing, errors=["{}"] * 20_000)).seen
        for _ in range(9):
            seen = (await count(store, ("F", 1))).seen
        assert len(seen.models) <= models.KEPT
        assert await client.hlen(store.keys.models) <= models.KEPT
        assert seen.record is not None
        assert seen.record.breaker.failures == 10

    async def test_a_wait_of_years_is_none(self, store: Store, client: aioredis.Redis) -> None:
        now = time.time()
        for name, until in {"ms": now * 1000, "years": now + YEAR_S, "a day": now + 86_400}.items():
            await client.hset(store.keys.models, name, json.dumps({"seen_s": int(now), "until_s": until}))
        known = (await store.read()).models
        assert {name for name, model in known.items() if model.until} == {"a day"}
        seen = (await count(store, models={"ms": Run(failures=1), "new": Run(until=now + YEAR_S)})).seen
        assert seen.models["ms"].until == 0
        assert seen.models["new"].until <= now + LIMITS["wait_s"] + 1


@pytest.mark.parametrize("version", ["nan", "9223372036854775807", "\x00"])
async def test_a_permit_is_given_whatever_the_version_is(store: Store, client: aioredis.Redis, version: str) -> None:
    policy = Policy(reset_timeout_s=0.001, next_trial_s=0.0)
    await count(store, ("F", 5))
    await store.change(lambda record, now: record and evaluation.evaluate(record, now=now, policy=policy, by="me"))
    await asyncio.sleep(0.01)

    def tried(record: SharedState | None, now: float) -> SharedState | None:
        return record and trial_calls.with_permit(record, "first", now=now, policy=policy)

    known = await store.change(tried)
    await client.hset(store.keys.state, "version", version)
    taken, seen = await store.permit("second", known, policy)
    assert taken is True
    assert seen.record is not None
    assert isinstance(seen.record.breaker, HalfOpen)
    assert set(seen.record.breaker.permits) == {"first", "second"}
