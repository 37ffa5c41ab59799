"""Stored objects of any shape, as an older or permissive schema may have accepted them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from openrouter_guard.rules.parsing import LINE_MOST
from openrouter_operator.decisions import status as conditions
from openrouter_operator.decisions.events import events
from openrouter_operator.decisions.result import ReconcileResult
from openrouter_operator.resource import spec as specs
from openrouter_operator.resource.precedence import Precedence
from openrouter_operator.resource.spec import InvalidSpec
from openrouter_operator.workloads.kinds import BY_NAME, from_crd
from openrouter_operator.workloads.workload import Workload
from tests.operator import foreign
from tests.operator.conftest import CRDS
from tests.operator.test_conditions import COMING_BACK, HALF, IN_AN_OUTAGE, IN_PEACE, IN_THE_DARK, a_round

pytestmark = pytest.mark.slow

SCHEMAS = yaml.safe_load((CRDS / "openrouterstatuses.yaml").read_text())["spec"]["versions"][0]["schema"]
FIELDS: dict[str, Any] = SCHEMAS["openAPIV3Schema"]["properties"]
METADATA = {"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "1"}
CREATED = {"creationTimestamp": "2026-01-01T00:00:00Z"}
ROLLOUT = from_crd(foreign.crd("argoproj.io", "v1alpha1", "Rollout", ".spec.replicas"))
KINDS = [ROLLOUT, BY_NAME["ScaledObject"], BY_NAME["ScaledJob"]]
WORDS = ("default", "Observe", "2026-01-01T00:00:00Z", "Deployment", "False", "Available", "\x1b[31m\n")

ON_THE_WAY_BACK = a_round(goal=HALF, summary=COMING_BACK)

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(WORDS)
names = st.text(max_size=6) | st.sampled_from(("name", "kind", "selector", "type", "status", "lastTransitionTime"))
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=6
)


def nearly(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """What the schema asks for, with something else here and there."""
    if "properties" in schema:
        fields = {name: nearly(inner) | anything for name, inner in schema["properties"].items()}
        return anything | st.fixed_dictionaries({}, optional=fields)
    return anything | st.lists(nearly(schema["items"]), max_size=3) if "items" in schema else anything


@given(nearly(FIELDS["spec"]))
def test_any_spec_is_carried_out_or_named_in_one_line(spec: Any) -> None:
    try:
        specs.parse(spec)
    except InvalidSpec as error:
        assert (len(str(error)) <= LINE_MOST, str(error).isprintable()) == (True, True)  # noqa: PT017  some are valid
    resource = {"metadata": METADATA | CREATED, "spec": spec}
    precedence = Precedence()
    precedence.put(resource)
    precedence.before("n", "u")
    specs.class_of(resource)
    specs.is_left_paused(resource)


@pytest.mark.parametrize(
    "now",
    [IN_PEACE, IN_AN_OUTAGE, ON_THE_WAY_BACK, IN_THE_DARK],
    ids=["in peace", "in an outage", "on the way back", "in the dark"],
)
@given(status=nearly(FIELDS["status"]))
def test_whatever_status_there_is_a_round_goes_on_from_it(now: ReconcileResult, status: Any) -> None:
    old = conditions.sound({"status": status})["status"]
    new = conditions.status(old, now)
    events(old, new)
    conditions.differs(old, new, since_write_s=1.0)
    conditions.rolling(old)
    conditions.unknown_since(old)


def test_a_status_of_our_own_is_taken_as_it_is() -> None:
    status = conditions.status({}, IN_AN_OUTAGE)
    assert conditions.sound({"status": status, "spec": {}}) == {"status": status, "spec": {}}
    assert conditions.sound({})["status"] == {"conditions": [], "problems": []}


fields = st.sampled_from(("replicas", "paused", "scaleTargetRef", "workloadRef", "updatedReplicas", "conditions"))
statuses = fields | st.sampled_from(("observedGeneration", "stableRS", "currentPodHash", "readyReplicas"))


@given(
    st.sampled_from(KINDS),
    anything | st.dictionaries(fields, anything),
    anything | st.dictionaries(statuses, anything),
    st.text(),
)
def test_an_object_of_a_custom_kind_may_hold_anything(kind: Any, spec: Any, status: Any, note: str) -> None:
    notes = dict.fromkeys(("autoscaling.keda.sh/paused", "openrouter-guard.io/paused"), note)
    metadata = METADATA | CREATED | {"annotations": notes, "generation": 2}
    found = Workload.of(kind, {"metadata": metadata, "spec": spec, "status": status})
    assert found.pods >= 0
