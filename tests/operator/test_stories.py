"""Random stories of outages, people, edits and crashes: invariants at every moment and at the end.

The operator of these stories consists of the pure rules alone, and keeps nothing but what it sees. Each of its writes
may be the last one before it dies, and each may meet a workload that is no longer as it was seen.
"""

from __future__ import annotations

import random
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from openrouter_guard.rules.breaker import Breaker, BreakerState, Closed, HalfOpen, Open
from openrouter_guard.rules.shared_state import SharedState
from openrouter_operator.decisions import goal as goals
from openrouter_operator.decisions import plan
from openrouter_operator.decisions.goal import Goal, Step
from openrouter_operator.decisions.snapshot import ScopeSnapshot
from openrouter_operator.decisions.targets import Candidate, Owner, Targets, paused_since
from openrouter_operator.resource.spec import Mode, OnManualChange, Options, Spec, Strategy
from openrouter_operator.workloads.kinds import DEPLOYMENT
from openrouter_operator.workloads.workload import PAUSED, Change, Workload
from tests.operator.samples import OTHER, OWNER, spec

pytestmark = pytest.mark.slow

NAMES = "abcde"
AUTOSCALED = frozenset("e")
OWNERS = (OWNER, OTHER)
OPEN_S = 20.0
GIVE_BACK = Goal(Step.RESUME, "Deleted", share=1.0)
NOTHING_KNOWN = ScopeSnapshot(record=None, now=0.0, is_fresh=False, last_known_at=0.0)


def mostly(usual: Any, other: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from([usual, usual, usual, other])


names = st.sampled_from(NAMES)
upstream = st.sampled_from(["fails", "fails", "is tried", "works"])
owners = st.sampled_from(OWNERS)
counts = st.integers(0, 8)
moments = st.sampled_from([1.0, 5.0, OPEN_S, 70.0])
orders = st.randoms(use_true_random=False)
luck = st.none() | st.integers(0, 4)
"""How many writes an operator makes before it dies; None if it lives."""
specs = st.builds(
    lambda targets, **fields: spec(
        targets=[{"kind": "Deployment", "name": name, "priority": ranks} for name, ranks in targets.items()], **fields
    ),
    st.dictionaries(names, st.sampled_from([-1, 0, 0, 7]), min_size=1),
    mode=st.sampled_from([Mode.SCALE_DOWN, Mode.SCALE_DOWN, Mode.SCALE_DOWN, Mode.OBSERVE, Mode.HOLD]),
    suspend=mostly(False, True),
    onManualChange=mostly(OnManualChange.RESPECT, OnManualChange.ENFORCE),
    pauseAfterSeconds=st.sampled_from([0, 10]),
    minPausedSeconds=st.sampled_from([0, 60]),
    maxPauseSeconds=st.sampled_from([None, 60, 200]),
    maxUnknownSeconds=st.sampled_from([30, 900]),
    resume=st.fixed_dictionaries(
        {
            "strategy": st.sampled_from(Strategy),
            "canary": mostly(True, False),
            "stepPercent": st.sampled_from([10, 25, 50]),
            "intervalSeconds": st.sampled_from([5, 30]),
        }
    ),
)


class Gone(Exception):
    """There is no such Deployment."""


class Changed(Exception):
    """The Deployment is no longer as it was seen."""


class Deployments:
    """A stand-in for the API server: versions, merge patches, refusal of what is out of date."""

    def __init__(self) -> None:
        self._bodies: dict[str, dict[str, Any]] = {}
        self._version = 0

    def create(self, name: str, replicas: int) -> None:
        uid = f"uid-{name}-{self._version}"
        metadata = {"name": name, "namespace": "jobs", "uid": uid, "annotations": {}}
        self._bodies[name] = {"metadata": metadata, "spec": {"replicas": replicas}}
        self._touch(name)

    def delete(self, name: str) -> None:
        del self._bodies[name]

    def scale(self, name: str, replicas: int) -> None:
        self._bodies[name]["spec"]["replicas"] = replicas
        self._touch(name)

    def patch(self, name: str, patch: dict[str, Any]) -> None:
        if name not in self._bodies:
            raise Gone
        body = self._bodies[name]
        if patch["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            raise Changed
        for key, value in patch["metadata"]["annotations"].items():
            body["metadata"]["annotations"].pop(key, None)
            if value is not None:
                body["metadata"]["annotations"][key] = value
        body["spec"] |= patch.get("spec", {})
        self._touch(name)

    def all(self) -> dict[str, Workload]:
        return {name: Workload.of(DEPLOYMENT, deepcopy(body)) for name, body in self._bodies.items()}

    def annotations(self) -> set[str]:
        return {key for body in self._bodies.values() for key in body["metadata"]["annotations"]}

    def _touch(self, name: str) -> None:
        self._version += 1
        self._bodies[name]["metadata"]["resourceVersion"] = str(self._version)


class Story(RuleBasedStateMachine):
    """The world, and two resources in it that may name the same workloads."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000_000.0
        self.breaker: Breaker = Closed()
        self.is_known = True
        self.last_known: SharedState | None = SharedState()
        self.last_known_at = self.now
        self.deployments = Deployments()
        self.seen: dict[str, Workload] = {}
        self.wishes: dict[str, int] = {}
        self.decided: dict[str, str] = {}
        """The outage in which a person overruled a pause."""
        all_of_them = [{"kind": "Deployment", "name": name} for name in NAMES]
        self.specs = {OWNER: spec(targets=all_of_them, pauseAfterSeconds=0, minPausedSeconds=0)}
        self.specs[OTHER] = replace_spec(self.specs[OWNER], pause_after_seconds=10.0)

    @initialize(originals=st.fixed_dictionaries(dict.fromkeys(NAMES, counts)))
    def begin(self, originals: dict[str, int]) -> None:
        for name, replicas in originals.items():
            self._create(name, replicas)
        self.the_upstream("fails", 0.0)
        self.undisturbed_rounds(random.Random(1), 0.0)

    # -- the upstream -------------------------------------------------------------------------------------------

    @rule(happens=upstream, seconds=moments)
    def the_upstream(self, happens: str, seconds: float) -> None:
        match happens, self.phase:
            case "fails", BreakerState.CLOSED:
                self.breaker = Open("timeout", self.now, self.now + OPEN_S)
            case "fails", BreakerState.HALF_OPEN:
                self.breaker = Open("timeout", self._opened_s, self.now + OPEN_S)
            case "is tried", BreakerState.HALF_OPEN:
                self.breaker = HalfOpen("timeout", self._opened_s)
            case "works", BreakerState.HALF_OPEN:
                self.breaker = Closed(since=self.now)
        self._passes(seconds)

    @rule(is_there=mostly(True, False), seconds=moments)
    def redis_comes_and_goes(self, seconds: float, *, is_there: bool) -> None:
        self.is_known = is_there
        self._passes(seconds)

    @rule(seconds=st.sampled_from([2.0, 90.0, 86_400.0]))
    def the_clock_is_set_back(self, seconds: float) -> None:
        """As when another server of Redis takes over."""
        if self.is_known:
            self.now -= seconds
            self._passes(0.0)

    # -- people -------------------------------------------------------------------------------------------------

    @rule(name=names, replicas=counts)
    def somebody_scales(self, name: str, replicas: int) -> None:
        workload = self.live.get(name)
        if workload is None or replicas == workload.pods:
            return
        if workload.pause and replicas == workload.pause.set_to:
            return  # Nobody can tell it from our own doing.
        if workload.pause and name in AUTOSCALED and replicas and workload.set_pods:
            return  # Nobody can tell it from its autoscaler's doing.
        if workload.pause:
            self.decided[name] = self.truth.outage
        self.deployments.scale(name, replicas)
        self.wishes[name] = replicas

    @rule(name=names, replicas=counts)
    def somebody_creates_or_deletes(self, name: str, replicas: int) -> None:
        if name not in self.wishes:
            self._create(name, replicas)
            return
        self.deployments.delete(name)
        del self.wishes[name]
        self.decided.pop(name, None)

    @rule(owner=owners, edited=specs)
    def somebody_edits(self, owner: Owner, edited: Spec) -> None:
        self.specs[owner] = edited

    # -- the operator -------------------------------------------------------------------------------------------

    @rule(owner=owners, order=orders, dies_after=luck, is_late=mostly(False, True), seconds=moments)
    def a_round(
        self, owner: Owner, order: random.Random, dies_after: int | None, seconds: float, *, is_late: bool
    ) -> None:
        if not is_late:
            self._look()
        self._round(owner, order, dies_after)
        self._passes(seconds)

    @rule(order=orders, seconds=moments)
    def undisturbed_rounds(self, order: random.Random, seconds: float) -> None:
        for owner in OWNERS:
            self._look()
            goal = self._round(owner, order, None)
            if goal.step is Step.CANARY:
                assert self._pods_of_paused(owner) <= 1
        self._passes(seconds)

    @rule()
    def restart(self) -> None:
        self._look()
        if not self.is_known:
            self.last_known, self.last_known_at = None, self.now

    @rule(owner=owners, order=orders)
    def the_resource_is_deleted_and_made_anew(self, owner: Owner, order: random.Random) -> None:
        while self._is_pausing(owner):
            for change in self._ordered(
                plan.changes(GIVE_BACK, NOTHING_KNOWN, Targets(owner, self._of(owner, None))), order
            ):
                # With the resource goes what it knew.
                self.decided.pop(change.workload.name, None)
                self._write(change, NOTHING_KNOWN)
        for name, workload in self.live.items():
            assert workload.pause is None or workload.pause.owner_uid != owner.uid, name

    # -- what holds at every moment -----------------------------------------------------------------------------

    @invariant()
    def what_its_owner_wants_at_zero_stays_there(self) -> None:
        for name, workload in self.live.items():
            assert self.wishes[name] > 0 or workload.pods == 0, workload

    @invariant()
    def there_are_never_more_pods_than_wanted(self) -> None:
        for name, workload in self.live.items():
            assert workload.pods <= self.wishes[name], workload

    @invariant()
    def what_does_not_run_as_wanted_tells_what_was_wanted(self) -> None:
        for name, workload in self.live.items():
            if workload.pods != self.wishes[name]:
                assert workload.pause is not None, workload
                assert workload.pause.original == self.wishes[name], workload

    def teardown(self) -> None:
        """Once the breaker is closed, and enough time has passed, everything is as its owner wants it."""
        self.is_known, self.breaker = True, Closed(since=self.now)
        self.specs = {owner: replace_spec(asked, suspend=False) for owner, asked in self.specs.items()}
        for _ in range(40):
            self.undisturbed_rounds(random.Random(1), 15.0)
            self.what_its_owner_wants_at_zero_stays_there()
            self.there_are_never_more_pods_than_wanted()
            self.what_does_not_run_as_wanted_tells_what_was_wanted()
        assert {name: workload.pods for name, workload in self.live.items()} == self.wishes
        assert PAUSED not in self.deployments.annotations()

    # -- how ----------------------------------------------------------------------------------------------------

    @property
    def live(self) -> dict[str, Workload]:
        return self.deployments.all()

    @property
    def truth(self) -> ScopeSnapshot:
        return ScopeSnapshot(
            SharedState(self.breaker), self.now, is_fresh=True, last_known_at=self.now, since=self._since
        )

    @property
    def phase(self) -> BreakerState | None:
        return self.truth.phase

    @property
    def _since(self) -> float:
        return self.breaker.since if isinstance(self.breaker, Closed) else 0.0

    @property
    def _opened_s(self) -> float:
        return 0.0 if isinstance(self.breaker, Closed) else self.breaker.opened_at

    def _passes(self, seconds: float) -> None:
        self.now += seconds
        if self.is_known:
            self.last_known, self.last_known_at = SharedState(self.breaker), self.now

    def _create(self, name: str, replicas: int) -> None:
        self.deployments.create(name, replicas)
        self.wishes[name] = replicas

    def _look(self) -> None:
        """The watch catches up; at any other time the operator may see what was long ago."""
        self.seen = self.live

    def _snapshot(self) -> ScopeSnapshot:
        if self.is_known:
            return self.truth
        return ScopeSnapshot(self.last_known, self.now, is_fresh=False, last_known_at=self.last_known_at)

    def _of(self, owner: Owner, asked: Spec | None) -> list[Candidate]:
        found = [
            Candidate(
                w,
                asked is not None and asked.matches(w),
                w.name in AUTOSCALED,
                options=(asked.options(w) if asked else None) or Options(),
            )
            for w in self.seen.values()
        ]
        return [candidate for candidate in found if candidate.is_matched or candidate.is_paused_by(owner)]

    def _is_pausing(self, owner: Owner) -> bool:
        return any(candidate.is_paused_by(owner) for candidate in self._of(owner, None))

    def _round(self, owner: Owner, order: random.Random, dies_after: int | None) -> Goal:
        asked, snapshot = self.specs[owner], self._snapshot()
        found = self._of(owner, asked)
        goal = goals.goal(asked, snapshot, paused_since(Targets(owner, found), snapshot))
        changes = self._ordered(plan.changes(goal, snapshot, Targets(owner, found)), order)
        if not self.is_known and self.now < self.last_known_at + asked.max_unknown_seconds:
            assert not changes or asked.mode is Mode.OBSERVE
        for change in changes[:dies_after]:
            self._write(change, snapshot)
        if dies_after is not None:
            self.restart()
        return goal

    def _ordered(self, changes: list[Change], order: random.Random) -> list[Change]:
        """They are made at once: no order can be relied on."""
        order.shuffle(changes)
        return changes

    def _write(self, change: Change, snapshot: ScopeSnapshot) -> None:
        name = change.workload.name
        try:
            self.deployments.patch(name, change.patch())
        except Gone:
            del self.seen[name]
            return
        except Changed:
            self.seen[name] = self.live[name]
            return
        self._check_that_people_win(change, snapshot)
        self.seen[name] = self.live[name]

    def _check_that_people_win(self, change: Change, snapshot: ScopeSnapshot) -> None:
        name = change.workload.name
        if change.pause and change.pause.contest and not change.workload.is_as_we_set_it:
            self.decided.pop(name, None)  # The spec says that they do not.
            return
        if change.pods not in (None, change.workload.pods):
            assert not snapshot.outage or self.decided.get(name) != snapshot.outage, change
        if change.pause is None and snapshot.record is None:
            # Nobody knows which outage this is, so nobody can say later that it was this one.
            self.decided.pop(name, None)

    def _pods_of_paused(self, owner: Owner) -> int:
        mine = (c for c in self._of(owner, self.specs[owner]) if c.is_matched and c.is_paused_by(owner))
        return sum(candidate.workload.pods for candidate in mine)


def replace_spec(asked: Spec, **fields: Any) -> Spec:
    return asked.model_copy(update=fields)


Story.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestAnyStory = Story.TestCase
