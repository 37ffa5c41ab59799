"""A task whose call was refused, in every form that the refusal can take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import celery
import pytest
from celery.exceptions import Ignore, Reject, Retry

from openrouter_guard import CallNotPermitted
from openrouter_guard.celery import HOLD_S, MAX_COUNTDOWN_S, MIN_COUNTDOWN_S, GuardedTask


class ClientError(Exception):
    """A client's error, as that of a connection that failed."""


def refused(wait_s: float = 60.0) -> CallNotPermitted:
    return CallNotPermitted(wait_s, "service_unavailable")


def bare() -> None:
    raise refused()


def wrapped() -> None:
    raise ClientError("Connection error.") from refused()


def wrapped_twice() -> None:
    try:
        wrapped()
    except ClientError as error:
        raise RuntimeError("no answer after 3 attempts") from error


def in_a_group() -> None:
    raise ExceptionGroup("unhandled errors in a TaskGroup", [refused()])


WAYS = pytest.mark.parametrize("way", [bare, wrapped, wrapped_twice, in_a_group])


@pytest.fixture
def app() -> Iterator[celery.Celery]:
    with celery.Celery("tests", broker="memory://", backend="cache+memory://", task_cls=GuardedTask) as app:
        yield app


def run(task: Any, retries: int = 0, headers: Mapping[str, Any] | None = None) -> BaseException | None:
    """Run it as a worker does, and return what it raises."""
    task.push_request(
        called_directly=False,
        is_eager=False,
        id="1",
        args=(),
        kwargs={},
        retries=retries,
        delivery_info={"exchange": "", "routing_key": "celery"},
        headers=dict(headers or {}),
    )
    try:
        task()
    except Exception as error:  # noqa: BLE001  that is what is asked for
        return error
    else:
        return None
    finally:
        task.pop_request()


def sent(app: celery.Celery) -> list[Any]:
    """What went back to the queue."""
    with app.connection_for_read() as connection, connection.SimpleQueue("celery") as queue:
        return [queue.get(block=False) for _ in range(queue.qsize())]


def retried(app: celery.Celery, raised: BaseException | None) -> tuple[float, int]:
    """In how many seconds a task is tried again, and which retry that is."""
    assert isinstance(raised, Retry)
    assert isinstance(raised.exc, CallNotPermitted)
    (message,) = sent(app)
    assert isinstance(raised.when, int | float)
    return raised.when, message.headers["retries"]


@WAYS
def test_it_goes_back_to_the_queue_and_that_is_no_retry(app: celery.Celery, way: Callable[[], None]) -> None:
    task = app.task(max_retries=0)(way)
    assert retried(app, run(task)) == (60, 0)


@WAYS
def test_so_it_does_where_it_would_retry_by_itself_whatever_happens(
    app: celery.Celery, way: Callable[[], None]
) -> None:
    task = app.task(autoretry_for=(Exception,), max_retries=3, retry_backoff=True)(way)
    assert retried(app, run(task, retries=2)) == (60, 2)


@WAYS
def test_so_it_does_where_it_retries_by_hand(app: celery.Celery, way: Callable[[], None]) -> None:
    def by_hand(self: celery.Task) -> None:
        try:
            way()
        except Exception as error:
            raise self.retry(exc=error, countdown=5) from error

    assert retried(app, run(app.task(bind=True, max_retries=0)(by_hand))) == (60, 0)


def test_an_error_of_its_own_is_a_retry_like_any_other(app: celery.Celery) -> None:
    def fails() -> None:
        raise ClientError("Bad gateway.")

    task = app.task(autoretry_for=(ClientError,), max_retries=3)(fails)
    raised = run(task, retries=1)
    assert isinstance(raised, Retry)
    (message,) = sent(app)
    assert message.headers["retries"] == 2
    assert isinstance(run(app.task(name="another")(fails)), ClientError)


def broken() -> None:
    raise TimeoutError("no answer")


@pytest.mark.parametrize("options", [{}, {"autoretry_for": (Exception,), "retry_backoff": True}], ids=["", "auto"])
def test_what_the_upstream_broke_goes_back_too_later_each_time_and_then_counts(
    app: celery.Celery, options: dict[str, Any]
) -> None:
    task = app.task(max_retries=0, **options)(broken)
    headers: dict[str, Any] = {}
    waits_s = []
    for _ in range(task.upstream_rounds):
        raised = run(task, headers=headers)
        assert isinstance(raised, Retry)
        waits_s.append(raised.when)
        (message,) = sent(app)
        assert message.headers["retries"] == 0
        headers = message.headers
    assert waits_s == [1, 2, 4, 8, 16]
    assert isinstance(run(task, headers=headers), TimeoutError)


def test_it_counts_at_once_where_that_is_asked_for(app: celery.Celery) -> None:
    assert isinstance(run(app.task(upstream_rounds=0)(broken)), TimeoutError)


@pytest.mark.parametrize("settled", [Ignore(), Reject("no", requeue=False), Retry(exc=refused())], ids=repr)
def test_what_a_task_has_settled_itself_stays_so(app: celery.Celery, settled: Exception) -> None:
    def settles() -> None:
        raise settled from refused()

    assert run(app.task(settles)) is settled
    assert sent(app) == []


@WAYS
def test_who_calls_it_gets_what_the_call_raised(app: celery.Celery, way: Callable[[], None]) -> None:
    task = app.task(way)
    with pytest.raises((CallNotPermitted, ClientError, RuntimeError, ExceptionGroup)) as caught:
        task()
    assert not isinstance(caught.value, Retry)
    assert sent(app) == []


@pytest.mark.parametrize("wait_s", [0.0, 0.2])
def test_a_short_wait_is_sat_out_and_the_copy_still_comes_after_the_note_of_the_retry(
    app: celery.Celery, wait_s: float
) -> None:
    """Celery sends the copy, and notes the retry only then: over the result of a copy that was quick."""

    def refuses() -> None:
        raise refused(wait_s)

    began_at = time.monotonic()
    assert retried(app, run(app.task(refuses))) == (MIN_COUNTDOWN_S, 0)
    assert wait_s <= time.monotonic() - began_at < HOLD_S


def test_a_long_wait_is_taken_in_parts(app: celery.Celery) -> None:
    def refuses() -> None:
        raise refused(90_000)

    assert retried(app, run(app.task(refuses))) == (MAX_COUNTDOWN_S, 0)
