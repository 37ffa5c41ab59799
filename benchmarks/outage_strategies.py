"""The strategies of ``outage_cost``: each as its documentation shows it, with defaults and no tuning.

A form that stops its worker from calling raises a refusal: nothing was sent, the task goes back and the worker tries
again a second later, the same for all. What the upstream broke is lost, unless the documentation shows what to do
with it. ``broken`` is no offer: it shows that the benchmark can tell a guard from none.
"""

from __future__ import annotations

import enum
import os
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx2
import openai
import redis

from openrouter_guard import CallNotPermitted, Guard, Settings, was_upstreams_fault
from openrouter_guard.httpx2 import GuardedTransport
from openrouter_guard.rules.breaker import Policy

from .forms import peer
from .outage_upstream import MODEL

__all__ = ["BROKEN", "NEEDS", "OFFERS", "STRATEGIES", "Fate", "Place", "Strategy"]

MESSAGES: list[Any] = [{"role": "user", "content": "Why?"}]
API_KEY = "sk-or-v1-benchmark"
PANEL_S = 10.0
"""How often somebody looks at the existing system's status page, which asks upstream where it knows nothing fresh."""
NEVER = 1_000_000
# Else it asks for a list of prices over the Internet when it is loaded.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")


class Fate(enum.Enum):
    """What becomes of a task."""

    DONE = enum.auto()
    REFUSED = enum.auto()  # nothing was sent: back into the queue, and a moment's rest
    PUT_BACK = enum.auto()  # it failed, and goes back into the queue
    LOST = enum.auto()  # it failed, and nobody tries it again


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process works: the upstream, the shared state, and which of the fleet's processes it is."""

    base_url: str
    redis_url: str
    index: int

    def client(self, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.base_url, api_key=API_KEY, **options)


def _always() -> bool:
    return True


def _lost(_error: Exception) -> Fate:
    return Fate.LOST


@dataclass(frozen=True, slots=True)
class Strategy:
    """How one process makes its calls.

    Attributes:
        call: One call, for one task.
        is_ready: Waits until a task should be taken; False: not yet.
        fate: What an exception of the call means for its task.
    """

    call: Callable[[], object]
    is_ready: Callable[[], bool] = _always
    fate: Callable[[Exception], Fate] = _lost


def _asking(client: openai.OpenAI) -> Callable[[], object]:
    return lambda: client.chat.completions.create(model=MODEL, messages=MESSAGES)


def _refused_by(*kinds: type[Exception]) -> Callable[[Exception], Fate]:
    return lambda error: Fate.REFUSED if isinstance(error, kinds) else Fate.LOST


# -- others -------------------------------------------------------------------------------------------------------


@contextmanager
def _bare(place: Place) -> Iterator[Strategy]:
    yield Strategy(_asking(place.client()))


@contextmanager
def _stamina(place: Place) -> Iterator[Strategy]:
    retry = peer("stamina").retry(on=openai.APIError, attempts=3)
    yield Strategy(retry(_asking(place.client())))


@contextmanager
def _circuitbreaker(place: Place) -> Iterator[Strategy]:
    library = peer("circuitbreaker")

    @library.circuit  # type: ignore[untyped-decorator]
    def ask() -> object:
        return asking()

    asking = _asking(place.client())
    # The breaker is named after the function and outlives it.
    library.CircuitBreakerMonitor.get(ask.__qualname__).reset()
    yield Strategy(ask, fate=_refused_by(library.CircuitBreakerError))


@contextmanager
def _pybreaker(place: Place) -> Iterator[Strategy]:
    library, client = peer("pybreaker"), redis.Redis.from_url(place.redis_url)
    storage = library.CircuitRedisStorage(library.STATE_CLOSED, client)
    breaker = library.CircuitBreaker(fail_max=5, reset_timeout=60, state_storage=storage)
    asking = _asking(place.client())
    yield Strategy(lambda: breaker.call(asking), fate=_refused_by(library.CircuitBreakerError))
    client.close()


@contextmanager
def _litellm(deployments: int, place: Place) -> Iterator[Strategy]:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else its import waits for a download
    library = peer("litellm")
    shared = urllib.parse.urlsplit(place.redis_url)
    parameters = {"model": f"openai/{MODEL}", "api_key": API_KEY, "api_base": place.base_url}
    models = [{"model_name": MODEL, "litellm_params": parameters} for _ in range(deployments)]
    router = library.Router(model_list=models, redis_host=shared.hostname, redis_port=shared.port, redis_password="")
    yield Strategy(
        lambda: router.completion(model=MODEL, messages=MESSAGES),
        fate=_refused_by(library.router.RouterRateLimitError),
    )


@contextmanager
def _existing(place: Place) -> Iterator[Strategy]:
    """It checks before it calls, reports after it, and a panel somewhere shows the status."""
    from tests.existing.double import ExistingWorker

    class Skipped(Exception):
        pass

    asking = _asking(place.client())

    def ask() -> None:
        if worker.should_skip_api_call():
            raise Skipped
        try:
            asking()
        except openai.APIError as error:
            worker.reporter.report_api_error(str(error), getattr(error, "status_code", None))
            raise
        worker.reporter.report_api_success()

    with ExistingWorker(place.redis_url) as worker, _panel(place):
        yield Strategy(ask, fate=_refused_by(Skipped))


@contextmanager
def _panel(place: Place) -> Iterator[None]:
    from tests.existing.double import Checked, ExistingApi, ExistingWorker

    def check() -> Checked:
        try:
            with urllib.request.urlopen(f"{place.base_url}/auth/key", timeout=10) as answer:
                return Checked(answer.status)
        except urllib.error.HTTPError as error:
            return Checked(error.code)

    def look() -> None:
        with ExistingWorker(place.redis_url) as reader:
            api = ExistingApi(reader.manager, check)
            while not over.wait(PANEL_S):
                api.status()

    over, looking = threading.Event(), threading.Thread(target=look, daemon=True)
    if place.index == 0:
        looking.start()
    yield
    over.set()


# -- ours ---------------------------------------------------------------------------------------------------------


@contextmanager
def _call(place: Place, policy: Policy | None = None) -> Iterator[Strategy]:
    asking = _asking(place.client(max_retries=0))

    def ask() -> object:
        with guard.call():
            return asking()

    with Guard(Settings(place.redis_url, policy=policy or Policy())) as guard:
        yield Strategy(ask, fate=_refused_by(CallNotPermitted))


@contextmanager
def _transport(place: Place) -> Iterator[Strategy]:
    with Guard(Settings(place.redis_url)) as guard, _guarded(guard) as http_client:
        yield Strategy(_asking(place.client(http_client=http_client)), fate=_refused_by(CallNotPermitted))


@contextmanager
def _wait(place: Place) -> Iterator[Strategy]:
    def fate(error: Exception) -> Fate:
        return Fate.PUT_BACK if was_upstreams_fault(error) else Fate.LOST

    with Guard(Settings(place.redis_url)) as guard, _guarded(guard) as http_client:
        yield Strategy(_asking(place.client(http_client=http_client, max_retries=0)), guard.wait, fate)


def _guarded(guard: Guard) -> httpx2.Client:
    return httpx2.Client(transport=GuardedTransport(guard), timeout=600, follow_redirects=True)


def _broken(place: Place) -> AbstractContextManager[Strategy]:
    """Ours, and nothing ever opens it."""
    return _call(place, Policy(failure_threshold=NEVER))


Made = Callable[[Place], AbstractContextManager[Strategy]]
OFFERS: dict[str, Made] = {
    "openai": _bare,
    "openai, stamina": _stamina,
    "circuitbreaker": _circuitbreaker,
    "pybreaker, Redis": _pybreaker,
    "LiteLLM, one deployment": partial(_litellm, 1),
    "LiteLLM, two deployments": partial(_litellm, 2),
    "existing scheme": _existing,
    "ours, call": _call,
    "ours, transport": _transport,
    "ours, wait + transport": _wait,
}
NEEDS = {
    "openai, stamina": "stamina",
    "circuitbreaker": "circuitbreaker",
    "pybreaker, Redis": "pybreaker",
    "LiteLLM, one deployment": "litellm",
    "LiteLLM, two deployments": "litellm",
}
BROKEN = "broken"
STRATEGIES = {**OFFERS, BROKEN: _broken}
