"""The inventory of workloads: the newest version wins, whatever its source and order of arrival."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openrouter_operator.workloads.inventory import Inventory
from openrouter_operator.workloads.workload import Workload
from tests.operator.samples import paused, workload


def version(number: int | str, **fields: object) -> Workload:
    return replace(workload(), version=str(number), **fields)  # type: ignore[arg-type]


def known(*in_order: Workload) -> list[Workload]:
    inventory = Inventory()
    for seen in in_order:
        inventory.put(seen)
    return list(inventory.of("jobs"))


def test_the_newer_version_wins_in_any_order() -> None:
    assert known(version(9), version(10)) == known(version(10), version(9)) == [version(10)]


def test_the_late_answer_about_one_that_was_replaced_does_not_bring_it_back() -> None:
    anew = version(12, uid="uid-of-the-new-one")
    assert known(version(10), anew, version(11)) == [anew]


def test_versions_that_are_no_numbers_are_taken_as_they_come() -> None:
    assert known(version("b"), version("a")) == [version("a")]


def test_what_the_api_server_says_when_asked_counts_whatever_its_version() -> None:
    inventory = Inventory()
    inventory.put(version(10))
    inventory.replace(version(3))
    assert list(inventory.of("jobs")) == [version(3)]


def test_only_what_could_change_a_decision_is_news() -> None:
    inventory = Inventory()
    assert inventory.put(version(10))
    assert not inventory.put(version(11)), "nothing but its version differs"
    assert not inventory.put(version(9, value=5)), "it is older than what is known"
    assert inventory.put(version(12, value=5))
    assert inventory.put(version(13, value=5, labels={}))


def test_exactly_what_is_known_need_not_be_read_again() -> None:
    inventory = Inventory()
    inventory.put(here := version(10))
    metadata = {"namespace": "jobs", "name": here.name, "uid": here.uid, "resourceVersion": "10"}
    assert inventory.at_version(here.kind, metadata) is here
    for other in ({"resourceVersion": "11"}, {"uid": "another"}, {"name": "b"}, {"namespace": "elsewhere"}):
        assert inventory.at_version(here.kind, metadata | other) is None


def test_what_is_dropped_is_gone_and_may_be_dropped_again() -> None:
    inventory = Inventory()
    inventory.put(workload("a"))
    inventory.put(workload("b"))
    for _ in range(2):
        inventory.drop(workload("a"))
    assert list(inventory.of("jobs")) == [workload("b")]


def test_each_namespace_has_its_own() -> None:
    inventory = Inventory()
    elsewhere = replace(workload(), namespace="elsewhere")
    inventory.put(workload())
    inventory.put(elsewhere)
    assert list(inventory.of("elsewhere")) == [elsewhere]
    assert list(inventory.of("nowhere")) == []


def test_the_paused_ones_are_found_in_all_namespaces() -> None:
    inventory = Inventory()
    elsewhere = replace(paused("b"), namespace="elsewhere")
    for found in (workload("a"), paused("b"), elsewhere):
        inventory.put(found)
    assert set(map(str, inventory.paused())) == {"Deployment/b"}
    assert len(list(inventory.paused())) == 2


def test_an_autoscaler_looks_after_what_it_points_at_now() -> None:
    inventory = Inventory()
    inventory.put_autoscaler(autoscaler("jobs", "a"))
    inventory.put_autoscaler(autoscaler("elsewhere", "z"))
    assert set(inventory.autoscaled("jobs")) == {("Deployment", "a")}
    inventory.put_autoscaler(autoscaler("jobs", "b"))
    assert set(inventory.autoscaled("jobs")) == {("Deployment", "b")}
    inventory.drop_autoscaler("jobs", "scaler")
    assert not inventory.autoscaled("jobs")


def autoscaler(namespace: str, target: str) -> dict[str, Any]:
    """A HorizontalPodAutoscaler named scaler."""
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}
    return {"metadata": {"namespace": namespace, "name": "scaler"}, "spec": {"scaleTargetRef": reference}}


def test_the_end_of_one_is_not_the_end_of_another_that_has_its_name() -> None:
    anew = version(12, uid="uid-of-the-new-one")
    inventory = Inventory()
    inventory.put(version(10))
    inventory.put(anew)
    inventory.drop(version(11))
    assert list(inventory.of("jobs")) == [anew]


@pytest.mark.parametrize("is_untried", [True, False], ids=["made anew", "there before the operator"])
def test_a_workload_has_worked_from_its_first_ready_pod_until_it_stands_at_zero(is_untried: bool) -> None:
    inventory = Inventory()
    for version, replicas, is_ready, expected in (
        ("1", 3, False, not is_untried), ("2", 3, True, True), ("3", 3, False, True), ("4", 0, True, False),
        ("5", 3, False, False), ("6", 3, True, True), ("7", 3, False, True),
    ):  # fmt: skip
        seen = replace(workload("a", replicas), version=version, is_ready=is_ready, is_untried=is_untried)
        inventory.put(seen)
        assert inventory.has_worked(seen) is expected, version
    inventory.drop(seen)
    assert inventory.has_worked(seen), "it is as little known as what an operator finds when it starts"


def test_one_that_was_made_anew_has_not_worked_whatever_its_predecessor_did() -> None:
    inventory = Inventory()
    inventory.put(version(10, is_ready=True))
    anew = version(12, uid="uid-of-the-new-one", is_untried=True)
    inventory.put(anew)
    assert not inventory.has_worked(anew)


def test_a_copy_of_what_an_undone_rollout_has_brought_back_is_no_copy_of_a_paused_one() -> None:
    inventory = Inventory()
    undone = replace(paused("a"), is_undone=True)
    pause = replace(undone.pause or pytest.fail("it is paused"), uid=undone.uid)
    assert not inventory.is_over(pause)
    inventory.put(replace(undone, pause=pause))
    inventory.put(replace(workload("a"), version="2"))
    assert inventory.is_over(pause)
    assert not inventory.is_over(replace(pause, at=pause.at + 1)), "that is another pause"
