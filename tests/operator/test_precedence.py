"""Two resources that name the same workload: the older one has precedence."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import pytest

from openrouter_operator.controller.handlers import Operator
from openrouter_operator.decisions.targets import Candidate, skip
from openrouter_operator.kubernetes.client import Cluster
from openrouter_operator.kubernetes.paths import finalizer_of
from openrouter_operator.resource.precedence import Precedence
from openrouter_operator.shared_state.feed import Feeds
from openrouter_operator.workloads.inventory import Inventory
from tests.operator.conftest import resource
from tests.operator.samples import OWNER, WORKERS, paused, workload


def claim(name: str, created: str, **spec: Any) -> dict[str, Any]:
    found = resource(name, **({"targets": [WORKERS]} | spec))
    found["metadata"] |= {"namespace": "jobs", "uid": f"uid-of-{name}", "creationTimestamp": created}
    return found


OLD, YOUNG = claim("old", "2026-01-01T00:00:00Z"), claim("young", "2026-01-02T00:00:00Z")


def before(uid: str, *resources: dict[str, Any]) -> list[str]:
    precedence = Precedence()
    for each in resources:
        precedence.put(each)
    return [found.name for found in precedence.before("jobs", uid)]


def test_the_older_goes_before_the_younger_in_whatever_order_they_are_seen() -> None:
    assert before("uid-of-young", YOUNG, OLD) == before("uid-of-young", OLD, YOUNG) == ["old"]
    assert before("uid-of-old", YOUNG, OLD) == []


def test_of_the_same_second_the_first_by_name() -> None:
    assert before("uid-of-old", OLD, claim("a", "2026-01-01T00:00:00Z")) == ["a"]


def test_one_that_changes_nothing_claims_nothing() -> None:
    created = OLD["metadata"]["creationTimestamp"]
    for idle in ({"mode": "Observe"}, {"dryRun": True}, {"suspend": True}, {"mode": "Sleep"}):
        assert before("uid-of-young", claim("old", created, **idle), YOUNG) == []


def operator(**environ: Any) -> Operator:
    """An operator that has no cluster to talk to."""
    return Operator(MagicMock(spec=Cluster), Inventory(), MagicMock(spec=Feeds), **environ)


@pytest.mark.parametrize(
    ("old", "expected"),
    [
        pytest.param({}, ["old"], id="one of our class"),
        pytest.param({"class": "blue"}, [], id="one of a class that no operator has"),
        pytest.param({"scope": "secret"}, [], id="one of a scope that its namespace may not use"),
    ],
)
def test_one_that_nobody_carries_out_claims_nothing(old: dict[str, Any], expected: list[str]) -> None:
    precedence = operator().precedence
    precedence.put(claim("old", "2026-01-01T00:00:00Z", **old))
    precedence.put(YOUNG)
    assert [found.name for found in precedence.before("jobs", "uid-of-young")] == expected


def test_one_of_another_class_claims_from_when_its_operator_has_taken_it_up() -> None:
    precedence = operator().precedence
    precedence.put(YOUNG)
    blue = claim("old", "2026-01-01T00:00:00Z", **{"class": "blue"})
    blue["metadata"]["finalizers"] = [finalizer_of("blue")]
    assert precedence.put(blue)
    assert [found.name for found in precedence.before("jobs", "uid-of-young")] == ["old"]


def test_a_scope_is_asked_for_as_long_as_another_one_does() -> None:
    precedence = Precedence()
    for each in (OLD, YOUNG, claim("third", "2026-01-03T00:00:00Z", scope="team")):
        precedence.put(each)
    assert precedence.scopes("jobs", besides="uid-of-old") == {"default", "team"}
    assert precedence.scopes("jobs", besides="uid-of-third") == {"default"}


def test_a_deleted_one_claims_nothing_any_more() -> None:
    precedence = Precedence()
    assert precedence.put(OLD)
    precedence.put(YOUNG)
    precedence.drop(OLD)
    assert precedence.before("jobs", "uid-of-young") == []
    going = claim("young", "2026-01-02T00:00:00Z")
    going["metadata"]["deletionTimestamp"] = "2026-01-03T00:00:00Z"
    assert precedence.put(going)


def test_only_a_change_of_what_is_asked_for_is_news() -> None:
    precedence = Precedence()
    assert precedence.put(OLD)
    assert not precedence.put(OLD | {"status": {"observedGeneration": 1}})
    assert precedence.put(claim("old", OLD["metadata"]["creationTimestamp"], mode="Hold"))


def test_the_younger_leaves_it_alone_and_says_who_has_it() -> None:
    why = skip(Candidate(workload(), claimed_by="old"), OWNER, "")
    assert why is not None
    assert (why.reason, "OpenRouterStatus old, which is older" in why.message) == ("MatchedByOther", True)


def test_what_it_has_paused_already_stays_its_own_until_it_comes_back() -> None:
    assert skip(Candidate(paused(), claimed_by="old"), OWNER, "") is None
