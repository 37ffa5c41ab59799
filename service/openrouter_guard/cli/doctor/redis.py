"""Checks Redis: the way there, its version, the rights of its user, what it may throw away, and its clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping

from openrouter_guard.errors import StoreError
from openrouter_guard.settings import Settings
from openrouter_guard.store import Timeouts
from openrouter_guard.store.inspection import Inspection

from .checks import Check, failed, ok, skipped, warning

__all__ = ["checked_redis"]

AREA = "redis"
OLDEST = 7
FAR_S = 0.1
CLOCK_S = 2.0
"""Further apart, log lines of this machine cannot be compared; deadlines use Redis' clock alone."""
_NO_INFO = "the user may not use INFO, which no part of this product needs: ask whoever runs Redis"


async def checked_redis(settings: Settings, part: str) -> AsyncIterator[Check]:
    """Yield the checks of Redis; only the first if it does not answer."""
    timeouts = Timeouts(settings.redis_timeout_s, settings.redis_timeout_s)
    redis = Inspection(settings.redis, settings.scope, timeouts)
    try:
        now, ahead_s = await redis.clock()
    except StoreError as error:
        advice = "set REDIS_URL to an address that this machine reaches; docs/redis.md lists the forms and the rights"
        yield failed(AREA, "reachable", str(error), advice)
        await redis.close()
        return
    try:
        yield ok(AREA, "reachable", redis.address)
        for check in await _asked(redis, part):
            yield check
        yield _clock(now, ahead_s)
    except StoreError as error:
        yield failed(AREA, "answers", str(error), "look at the log of Redis, and run this again")
    finally:
        await redis.close()


async def _asked(redis: Inspection, part: str) -> list[Check]:
    server = await redis.server()
    found = list(_of_server(server)) if server is not None else [skipped(AREA, "server", "not known", _NO_INFO)]
    return [_latency(await redis.latency_s()), *found, await _rights(redis, part)]


def _latency(median_s: float) -> Check:
    found = f"{median_s * 1000:.1f} ms, the median of five"
    advice = "bring Redis closer, or see docs/redis.md (a Redis that is far away) for what it costs"
    return ok(AREA, "latency", found) if median_s < FAR_S else warning(AREA, "latency", found, advice)


def _of_server(server: Mapping[str, str]) -> Iterator[Check]:
    yield _version(server)
    yield _role(server)
    yield _eviction(server)
    yield _persistence(server)


def _version(server: Mapping[str, str]) -> Check:
    name = "Valkey" if "valkey_version" in server else "Redis"
    version = server.get("valkey_version") or server.get("redis_version", "")
    compatible = server.get("redis_version", "0").partition(".")[0]
    if compatible.isdecimal() and int(compatible) >= OLDEST:
        return ok(AREA, "version", f"{name} {version}")
    return failed(AREA, "version", f"{name} {version}", f"use Redis {OLDEST} or newer, or Valkey")


def _role(server: Mapping[str, str]) -> Check:
    role = server.get("role", "not known")
    if role in {"master", "not known"}:
        return ok(AREA, "role", "primary" if role == "master" else role)
    return failed(AREA, "role", role, "let REDIS_URL lead to the primary, or name its Sentinels (redis+sentinel://)")


def _eviction(server: Mapping[str, str]) -> Check:
    policy, limit = server.get("maxmemory_policy", "not known"), server.get("maxmemory", "0")
    if policy in {"noeviction", "not known"} or limit == "0":
        return ok(AREA, "eviction", policy if limit != "0" else f"{policy}, without a limit of memory")
    return warning(
        AREA,
        "eviction",
        f"{policy} above {limit} bytes",
        "under memory pressure Redis may throw the breaker's state away: set maxmemory-policy noeviction, or give "
        "it memory of its own",
    )


def _persistence(server: Mapping[str, str]) -> Check:
    if server.get("rdb_last_bgsave_status") == "err" or server.get("aof_last_write_status") == "err":
        return failed(AREA, "persistence", "the last save failed", "free its disk, or look at the log of Redis")
    if server.get("aof_enabled") == "1":
        return ok(AREA, "persistence", "append-only file")
    saved = server.get("rdb_last_save_time", "0")
    return ok(AREA, "persistence", "snapshots, if any are configured; a loss is repaired" if saved != "0" else "none")


async def _rights(redis: Inspection, part: str) -> Check:
    missing = await redis.missing_rights(part)
    if not missing:
        return ok(AREA, "rights", f"all that the {part} needs")
    advice = f"give the user the rights of {part!r} in docs/redis.md, or choose another part with --part"
    return failed(AREA, "rights", f"lacks {', '.join(missing)}", advice)


def _clock(now: float, ahead_s: float) -> Check:
    found = f"this machine is {abs(ahead_s):.1f} s {'ahead' if ahead_s > 0 else 'behind'}"
    if now and abs(ahead_s) < CLOCK_S:
        return ok(AREA, "clock", found)
    return warning(AREA, "clock", found, "synchronise both clocks (NTP); deadlines use Redis' clock alone")
