"""docs/metrics.md is current, and the alerts use no metric that does not exist."""

from __future__ import annotations

import re

import pytest

from tests.alerts.programs import alerts
from tests.alerts.reference import PAGE, current, names

_METRIC = re.compile(r"\bopenrouter_guard_\w+")


def test_the_reference_is_current() -> None:
    assert PAGE.read_text() == current(), "run `python -m tests.alerts.reference`"


@pytest.mark.parametrize("alert", alerts())
def test_each_metric_of_an_alert_exists(alert: str) -> None:
    known = {name.partition("{")[0] for name in names()}
    assert set(_METRIC.findall(alerts()[alert]["expr"])) <= known
