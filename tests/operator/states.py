"""Random sequences of changes by people, specs and the breaker to a fleet, on a real API server.

Nobody writes down what is right: the same is done in a namespace that nobody pauses, and in the end, once the breaker
is closed and all is quiet, both have to be the same, without a trace of ours. See ``twins.py``.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from hypothesis import HealthCheck, seed, settings
from hypothesis import Phase as Trying
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from openrouter_guard import CallNotPermitted, Guard, OpenRouterStateManager, Settings
from openrouter_guard.rules.breaker import Policy
from openrouter_operator.workloads.workload import OPT
from tests.controlplane import ControlPlane
from tests.operator.conftest import Operator
from tests.operator.generated import CLASS, SCOPE, specs
from tests.operator.twins import APPLY, Body, Twins, manifest

__all__ = ["Ground", "Told", "grounds", "play"]

DEPLOYMENTS = ("one", "two")
PLACES = (("Deployment", "one"), ("Deployment", "two"), ("StatefulSet", "set"), ("CronJob", "cron"))
SPELLINGS = ("false", "False", "no", "off", "0", " true ", "true", "maybe")
SCALES = "?fieldManager=kubectl-scale"
PATIENCE_S = 60.0
QUIET_S = 3.0
FIRST_PAUSE_S = 5.0
LEASE_S = 3
GOOD: Body = {
    "class": CLASS,
    "scope": SCOPE,
    "targets": [
        {"kind": kind, "selector": {"matchLabels": {"fleet": "workers"}}} for kind in ("Deployment", "CronJob")
    ],
    "pauseAfterSeconds": 0,
    "minPausedSeconds": 0,
    "resume": {"strategy": "Immediate"},
}
places = st.sampled_from(PLACES)
deployments = st.sampled_from(DEPLOYMENTS)
names = st.sampled_from(("default", "default", "other"))
counts = st.sampled_from((3, 0, 1, 2, 5))


@dataclass
class Told:
    """What was tried, by name, and how often a workload was found paused."""

    moves: Counter[str] = field(default_factory=Counter)
    stories: int = 0
    paused: int = 0


@dataclass
class Ground:
    """Where stories are played: one operator looks after all of them.

    Attributes:
        remember: Called now and then: an API server that lags may go back to here.
        faults: How often the operator has seen an outdated cluster, by kind; see ``delays.py``.
        long_quiet_s: For how long nobody may write after every tenth story; after the others it is :data:`QUIET_S`.
    """

    control_plane: ControlPlane
    redis_url: str
    operator: Operator
    told: Told = field(default_factory=Told)
    remember: Callable[[], object] = lambda: None
    faults: Counter[str] = field(default_factory=Counter)
    long_quiet_s: float = QUIET_S

    @property
    def quiet_s(self) -> float:
        """How long nobody may write after the story that is being told."""
        return self.long_quiet_s if self.told.stories % 10 == 0 else QUIET_S

    def keep_operating(self) -> None:
        """An operator that could not renew its lease in time ends, and whoever runs it starts it again."""
        if self.operator.has_ended:
            self.operator.restart()


@contextmanager
def grounds(control_plane: ControlPlane, redis_url: str, folder: Path, **environ: str) -> Iterator[Ground]:
    """A ground with an operator of its own class."""
    ours = {
        "KUBECONFIG": str(control_plane.kubeconfig),
        "REDIS_URL": redis_url,
        "OPENROUTER_GUARD_CLASS": CLASS,
        "OPENROUTER_GUARD_LEASE_NAMESPACE": "default",
        "OPENROUTER_GUARD_LEASE_NAME": f"states-{secrets.token_hex(3)}",
        "OPENROUTER_GUARD_LEASE_SECONDS": str(LEASE_S),
        "OPENROUTER_GUARD_OPERATOR_PORT": "0",
        "OPENROUTER_GUARD_ACCESS": json.dumps([{"override": True}]),
    }
    operator = Operator(ours | environ, folder / "operator.log")
    try:
        yield Ground(control_plane, redis_url, operator)
    finally:
        operator.kill()


class Story(RuleBasedStateMachine):
    """One story; ``ground`` is set by :func:`play`."""

    ground: Ground

    def __init__(self) -> None:
        super().__init__()
        self.name = f"story-{secrets.token_hex(4)}"
        self.twins = Twins(self.ground.control_plane, self.name)
        policy = Policy(reset_timeout_s=3.0, max_reset_timeout_s=5.0)
        self.guard = Guard(Settings(self.ground.redis_url, scope=self.name, policy=policy))
        self.asked: dict[str, Body] = {}
        self.did: list[str] = []
        self.is_over = False

    def told(self, what: str, *details: object) -> None:
        self.ground.told.moves[what] += 1
        self.did.append(" ".join(map(str, (what, *details))))

    @initialize(pods=st.lists(counts, min_size=4, max_size=4), mode=st.sampled_from(("ScaleDown", "Hold")))
    def begins(self, pods: list[int], mode: str) -> None:
        """With an outage, and something paused where anything can be: else most stories would tell of nothing."""
        for (kind, name), number in zip(PLACES, pods, strict=True):
            self.twins.create(manifest(kind, name, number))
        self.twins.until_controllers_rest()
        self._watch("default", GOOD | {"mode": mode})
        self._until(lambda: self.twins.is_taken_up("default"), "the operator does not take up the first spec")
        self.told("begin", pods, mode)
        self.outage()
        deadline = time.monotonic() + FIRST_PAUSE_S
        while not self.twins.paused() and time.monotonic() < deadline:
            time.sleep(0.1)

    @invariant()
    def counts_what_is_paused(self) -> None:
        self.ground.keep_operating()
        if self.did:
            self.ground.told.paused += self.twins.paused()

    # -- the breaker ------------------------------------------------------------------------------------------------

    @rule()
    def outage(self) -> None:
        self.told("outage")
        for _ in range(5):
            with suppress(TimeoutError, CallNotPermitted), self.guard.call():
                raise TimeoutError("upstream took too long")
        self.guard.flush()
        time.sleep(0.3)

    @rule()
    def call_goes_well(self) -> None:
        self.told("good call")
        with suppress(CallNotPermitted), self.guard.call():
            pass
        self.guard.flush()

    @rule(kind=st.sampled_from(("forced_open", "forced_open", "forced_closed", "")))
    def person_decides(self, kind: str) -> None:
        self.told("override", kind)
        self._force(kind)
        time.sleep(0.5)

    @rule(seconds=st.sampled_from((0.2, 1.0, 2.5)))
    def time_passes(self, seconds: float) -> None:
        self.told("time", seconds)
        self.ground.remember()
        time.sleep(seconds)

    # -- the resource and its operator ------------------------------------------------------------------------------

    @rule(name=names, spec=specs())
    def spec_changes(self, name: str, spec: Body) -> None:
        self.told("spec", name, json.dumps(spec))
        self._watch(name, spec)

    @rule(name=names)
    def resource_is_deleted(self, name: str) -> None:
        self.told("resource deleted", name)
        self.twins.unwatch(name)

    @rule()
    def operator_dies(self) -> None:
        self.told("operator killed")
        self.ground.operator.restart()

    # -- what people do to workloads --------------------------------------------------------------------------------

    @rule(place=places, pods=counts)
    def scales(self, place: tuple[str, str], pods: int) -> None:
        kind, name = place
        if self._would_say_nothing(kind, name, pods):
            return
        self.told("scale", *place, pods)
        if kind == "CronJob":
            self.twins.both("PATCH", kind, name, {"spec": {"suspend": pods == 0}}, "?fieldManager=kubectl-patch")
        else:
            self.twins.both("PATCH", kind, f"{name}/scale", {"spec": {"replicas": pods}}, SCALES)

    @rule(name=deployments, pods=counts, image=st.sampled_from(("worker", "worker:2")))
    def applies(self, name: str, pods: int, image: str) -> None:
        if self._would_say_nothing("Deployment", name, pods):
            return
        self.told("apply", name, pods, image)
        self.twins.kubectl("apply", "--filename=-", stdin=json.dumps(manifest("Deployment", name, pods, image)))

    @rule(name=deployments, pods=counts, force=st.booleans())
    def applies_server_side(self, name: str, pods: int, force: bool) -> None:
        if self._would_say_nothing("Deployment", name, pods) or self.twins.get("Deployment", name) is None:
            return
        self.told("server-side apply", name, pods, force)
        body = manifest("Deployment", name, pods)
        query = f"?fieldManager=gitops&force={str(force).lower()}"
        self.twins.both("PATCH", "Deployment", name, body, query, APPLY)

    @rule(name=deployments, image=st.sampled_from(("worker:3", "worker:4")))
    def rolls_out(self, name: str, image: str) -> None:
        self.told("rollout", name, image)
        containers = [{"name": "worker", "image": image}]
        body = {"spec": {"template": {"spec": {"containers": containers}}}}
        self.twins.both("PATCH", "Deployment", name, body, "?fieldManager=kubectl-set")

    @rule(place=places, number=st.integers(1, 9))
    def restarts(self, place: tuple[str, str], number: int) -> None:
        kind, name = place
        if kind == "CronJob":
            return
        self.told("restart", *place)
        notes = {"kubectl.kubernetes.io/restartedAt": f"2026-01-01T00:00:0{number}Z"}
        body = {"spec": {"template": {"metadata": {"annotations": notes}}}}
        self.twins.both("PATCH", kind, name, body, "?fieldManager=kubectl-rollout")

    @rule(name=deployments)
    def undoes(self, name: str) -> None:
        self.told("undo", name)
        self.twins.until_controllers_rest()
        self.twins.kubectl("rollout", "undo", f"deployment/{name}")

    @rule(name=deployments, is_forgotten=st.booleans())
    def undoes_once_all_have_forgotten(self, name: str, is_forgotten: bool) -> None:
        """By then it has by chance the pods that the annotation which comes back says were set."""
        number = self.twins.number_handed_down(name)
        if number is None:
            return
        self.told("undo of a pause that nobody knows", name, is_forgotten)
        if is_forgotten:
            for resource in ("default", "other"):
                self.twins.unwatch(resource)
            self.operator_dies()
        self.twins.both("PATCH", "Deployment", f"{name}/scale", {"spec": {"replicas": number}}, SCALES)
        self.twins.until_controllers_rest()
        self.twins.kubectl("rollout", "undo", f"deployment/{name}")

    @rule(place=places)
    def copies(self, place: tuple[str, str]) -> None:
        kind, name = place
        if self.twins.copy(kind, name, f"copy-{name}"):
            self.told("copy", *place)

    @rule(place=places, label=st.sampled_from(("workers", "others", None)))
    def relabels(self, place: tuple[str, str], label: str | None) -> None:
        self.told("label", *place, label)
        body = {"metadata": {"labels": {"fleet": label}}}
        self.twins.both("PATCH", *place, body, "?fieldManager=kubectl-label")

    @rule(place=places, word=st.sampled_from((*SPELLINGS, None)))
    def opts(self, place: tuple[str, str], word: str | None) -> None:
        self.told("opt", *place, word)
        self.twins.both("PATCH", *place, {"metadata": {"annotations": {OPT: word}}}, "?fieldManager=kubectl-annotate")

    @rule(place=places, pods=counts)
    def deletes_and_makes_anew(self, place: tuple[str, str], pods: int) -> None:
        kind, name = place
        self.told("delete and create", *place, pods)
        self.twins.both("DELETE", kind, name)
        self._until(lambda: self.twins.get(kind, name) is None, f"{kind}/{name} does not go")
        self._until(lambda: self.twins.get(kind, name, self.twins.shadow) is None, f"{kind}/{name} does not go")
        self.twins.create(manifest(kind, name, pods))

    @rule(name=deployments, is_there=st.booleans())
    def autoscales(self, name: str, is_there: bool) -> None:
        self.told("autoscaler", name, is_there)
        if is_there:
            self.twins.kubectl("autoscale", f"deployment/{name}", "--min=1", "--max=100", "--cpu=50%")
        else:
            self.twins.kubectl("delete", "hpa", name, "--ignore-not-found")

    # -- in the end -------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if self.did:
                self._ends_well()
        finally:
            self.guard.close()
            self.twins.close()
            self.ground.told.stories += 1

    def _ends_well(self) -> None:
        self._force("forced_closed")
        for name in ("default", "other"):
            # One that is on its way out has to go first.
            wrong = partial(self._story, f"the resource {name} does not recover")
            self._until(partial(self._is_good, name), wrong)
        # An override of the last spec but one may have come after ours, and be gone by now.
        self._force("forced_closed")
        self._until(lambda: not self.twins.differences(), lambda: self._story(*self.twins.differences()))
        self._is_quiet()

    def _is_good(self, name: str) -> bool:
        self._watch(name, GOOD)
        return self.twins.is_taken_up(name)

    def _is_quiet(self) -> None:
        """Nothing is written any more, once what is under way has come to its end."""
        quiet_s, seen, since = self.ground.quiet_s, self.twins.versions(), time.monotonic()
        deadline = since + PATIENCE_S + quiet_s
        while time.monotonic() - since < quiet_s:
            time.sleep(0.3)
            now = self.twins.versions()
            if now != seen:
                seen, since = now, time.monotonic()
            assert time.monotonic() < deadline, self._story("somebody goes on writing")

    def _story(self, *wrong: str) -> str:
        lines = [*wrong, "after:", *self.did, *map(str, self.twins.problems())]
        return "\n  ".join(lines)

    # -- how --------------------------------------------------------------------------------------------------------

    def _until(self, holds: Callable[[], object], wrong: str | Callable[[], str]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            if time.monotonic() > deadline:
                raise AssertionError(self._story(wrong) if isinstance(wrong, str) else wrong())
            self.ground.keep_operating()
            time.sleep(0.2)

    def _watch(self, name: str, spec: Body) -> None:
        scope = spec.get("scope", SCOPE).replace(SCOPE, self.name)
        self.twins.watch(name, spec | {"scope": scope, "class": spec.get("class", CLASS)})

    def _would_say_nothing(self, kind: str, name: str, pods: int) -> bool:
        """Who writes what is written there already says nothing that the API server would keep."""
        body = self.twins.get(kind, name)
        if body is None:
            return True
        spec = body["spec"]
        return bool(spec.get("suspend") == (pods == 0) if kind == "CronJob" else spec.get("replicas") == pods)

    def _force(self, kind: str) -> None:
        async def decide() -> None:
            manager = OpenRouterStateManager(self.ground.redis_url, scope=self.name)
            if kind:
                await manager.set_override(kind, who="a story", why="it is to last", for_s=3600)
            else:
                await manager.clear_override(who="a story")
            await manager.close()

        asyncio.run(decide())


def play(ground: Ground, *, stories: int, steps: int, number: int | None = None) -> Told:
    """So many stories of so many steps; raises AssertionError with the story that does not end well.

    The same *number* gives the same stories.
    """
    machine = type("Story", (Story,), {"ground": ground})
    if number is not None:
        machine = seed(number)(machine)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=stories,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            # A story takes seconds: to make it shorter would take hours.
            phases=(Trying.generate,),
        ),
    )
    return ground.told
