"""A rollback while no operator runs removes the annotation of a pause; the ReplicaSets still hold it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openrouter_operator.controller.leftovers import Copy, newest
from openrouter_operator.workloads.workload import PAUSED, RESUME_TO, Workload
from tests.operator.samples import paused, workload

KNOWN = replace(paused().pause or pytest.fail("it is paused"), uid="uid-of-a")
COPY = Copy("jobs", "a-1", "7", "uid-of-a", KNOWN, frozenset({PAUSED}))


@pytest.mark.parametrize(
    ("seen", "is_known"),
    [
        pytest.param(workload(replicas=0, is_our_value=True), True, id="the operator wrote its 0"),
        pytest.param(workload(replicas=0, is_applied=True), True, id="nobody owns the 0 of what others apply"),
        pytest.param(workload(replicas=0, is_applied=True, changed_by="kubectl"), False, id="somebody owns it"),
        pytest.param(workload(replicas=0, changed_by="kubectl"), False, id="somebody else wrote its 0"),
        pytest.param(workload(replicas=3, is_our_value=True), False, id="it is back"),
        pytest.param(workload(replicas=0, is_our_value=True, released="now"), False, id="it was let go of"),
    ],
)
def test_what_its_replica_sets_tell_counts_where_the_operator_was_the_last_to_write(
    seen: Workload, *, is_known: bool
) -> None:
    found = newest(seen, [COPY])
    assert (found.pause == KNOWN, found.is_stripped) == (is_known, is_known)
    assert newest(seen, []) == seen


@pytest.mark.parametrize(
    ("word", "is_known"), [("stay", False), (" Stay", False), ("0", False), ("5", True), ("", True), ("five", True)]
)
def test_what_its_owner_wanted_to_stay_down_lacks_nothing(word: str, *, is_known: bool) -> None:
    body = {
        "metadata": {
            "namespace": "jobs",
            "name": "a-1",
            "resourceVersion": "7",
            "annotations": {PAUSED: KNOWN.text(), RESUME_TO: word},
            "ownerReferences": [{"uid": "uid-of-a", "controller": True}],
        }
    }
    copy = Copy.of(body)
    assert copy is not None
    assert copy.pause == KNOWN
    assert (newest(workload(replicas=0, is_applied=True), [copy]).pause == KNOWN) is is_known
