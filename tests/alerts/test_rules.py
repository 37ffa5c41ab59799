"""Each alert fires when it should and is quiet when it should be, by promtool."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.alerts.programs import RULES, alerts, find

pytestmark = pytest.mark.slow

SCOPE = 'namespace="guard",scope="default"'
SERVICE = "openrouter_guard_"
OPENED = f'{SCOPE},from="closed",to="open"'
OPERATOR = "openrouter_guard_operator_"
OWN = 'namespace="guard"'
TEAM = 'namespace="guard",exported_namespace="team-a"'
TEAM_OF_ONE = f'{TEAM},pod="a"'

REPEATED = re.compile(r"\b(NaN|Inf)x(\d+)")


class Case(NamedTuple):
    """Series by the minute, and whether the alert fires at a minute; *labels* are those that it has then."""

    alert: str
    why: str
    series: Mapping[str, str]
    minute: int
    labels: str | None = SCOPE


def state(closed: str, opened: str) -> dict[str, str]:
    return {
        f'{SERVICE}breaker_state{{{SCOPE},pod="a",state="closed"}}': closed,
        f'{SERVICE}breaker_state{{{SCOPE},pod="a",state="open"}}': opened,
    }


def store(values: str) -> dict[str, str]:
    return {f'{SERVICE}store_up{{{SCOPE},pod="a"}}': values}


def upstream(name: str, values: str) -> dict[str, str]:
    return {f'{SERVICE}upstream_state{{{SCOPE},state="{name}"}}': values}


def gauge(name: str, values: str, labels: str = SCOPE) -> dict[str, str]:
    return {f"{name}{{{labels}}}": values}


def workers(version: str, settings: str, values: str) -> dict[str, str]:
    return gauge(f"{SERVICE}workers", values, f'{SCOPE},pod="a",settings="{settings}",version="{version}"')


def opened(values: str, reason: str = "service_unavailable") -> dict[str, str]:
    labels = f'{OPENED},pod="a",reason="{reason}"'
    return gauge(f"{SERVICE}transitions_total", values, labels)


FIRING = [
    Case("ServiceDown", "nothing was ever scraped", {}, 6, ""),
    Case("ServiceDown", "it is gone", store("1x5"), 20, ""),
    Case("StoreUnreadable", "every replica has failed", store("1 0x9"), 5),
    Case("BreakerOpen", "it alternates between open and half-open", state("1 0x20", "0 1 0 1 0 1 0 1 0"), 4),
    Case("BreakerOpen", "Redis goes away during the outage", state("1 0x20", "0 1x20") | store("1 1 1 1 0x20"), 20),
    Case(
        "BreakerOpen",
        "a service that knows nothing starts meanwhile",
        state("1 0 0 0 0 NaNx20", "0 1 1 1 1 NaNx20") | store("1 1 1 0x20"),
        20,
    ),
    Case(
        "BreakerOpen",
        "the only service is restarted meanwhile, and knows nothing",
        state("1 0 0 0 0 stale _ _ NaNx20", "0 1 1 1 1 stale _ _ NaNx20") | store("1 1 1 0 0 stale _ _ 0x20"),
        20,
    ),
    Case("BreakerFlapping", "it opened three times", opened("0 0 1 1 1 2 2 2 3x20"), 12),
    Case(
        "BreakerFlapping",
        "it opened for several reasons",
        opened("0 0 1 1 1 2x20") | opened("0x5 1x20", "timeout"),
        12,
    ),
    Case("ErrorRateHigh", "every third call fails", gauge(f"{SERVICE}error_ratio", "0.33x20"), 8),
    Case(
        "ErrorRateHigh",
        "Redis goes away meanwhile",
        gauge(f"{SERVICE}error_ratio", "0.33x8 NaNx20") | store("1x7 0x20"),
        25,
    ),
    Case("KeyInvalid", "OpenRouter refuses it", upstream("api_key_invalid", "0 1x9"), 4),
    Case("KeyInvalid", "there is none", upstream("api_key_missing", "0 1x9"), 4),
    Case(
        "KeyInvalid",
        "a service that knows nothing starts while Redis is away",
        upstream("api_key_invalid", "0 1x9 NaNx20") | store("1x7 0x30"),
        25,
    ),
    Case("CreditsExhausted", "the account is empty", upstream("credits_exhausted", "0 1x9"), 4),
    Case(
        "CreditsExhausted",
        "a service that knows nothing starts while Redis is away",
        upstream("credits_exhausted", "0 1x9 NaNx20") | store("1x7 0x30"),
        25,
    ),
    Case("CreditLow", "a few dollars are left", gauge(f"{SERVICE}balance_usd", "4.2x20"), 8),
    Case("CreditRunningOut", "it lasts an hour", gauge(f"{SERVICE}credit_seconds_to_empty", "3600x30"), 20),
    Case("ChecksStale", "the last check is long ago", gauge(f"{SERVICE}state_age_seconds", "0+60x40"), 25),
    Case(
        "OverrideStanding",
        "it has stood for hours",
        gauge(f"{SERVICE}override_active", "1x300", f'{SCOPE},kind="disabled"'),
        245,
        f'{SCOPE},kind="disabled"',
    ),
    Case(
        "WebhookFailing",
        "an event was dropped",
        gauge(f"{SERVICE}webhook_events_total", "0x5 1x20", f'{SCOPE},result="dropped"'),
        10,
    ),
    Case(
        "VersionsDiffer",
        "the operator is older",
        {
            f'{SERVICE}build_info{{version="0.2.0",pod="a"}}': "1x80",
            f'{OPERATOR}build_info{{version="0.1.0",pod="b"}}': "1x80",
        },
        70,
        "",
    ),
    Case("WorkersDiffer", "one is older", workers("1.0.0", "aa", "3x80") | workers("1.1.0", "aa", "1x80"), 70),
    Case("WorkersDiffer", "one has others", workers("1.0.0", "aa", "3x80") | workers("1.0.0", "bb", "1x80"), 70),
    Case("OperatorDown", "nothing was ever scraped", {}, 6, ""),
    Case("OperatorDown", "it is gone", gauge(f"{OPERATOR}build_info", "1x5", 'version="1"'), 20, ""),
    Case("NoLeader", "nobody is there to be scraped", {}, 3, ""),
    Case("NoLeader", "the last one is gone", gauge(f"{OPERATOR}leader", "1x5", OWN), 20, ""),
    Case(
        "NoLeader",
        "both stand by",
        gauge(f"{OPERATOR}leader", "0x9", f'{OWN},job="operator",pod="a"')
        | gauge(f"{OPERATOR}leader", "0x9", f'{OWN},job="operator",pod="b"'),
        4,
        f'{OWN},job="operator"',
    ),
    Case("OperatorStateUnknown", "its Redis is away", gauge(f"{OPERATOR}state_age_seconds", "0+60x20"), 6),
    Case(
        "PausedLong",
        "for two hours",
        gauge(f"{OPERATOR}longest_pause_seconds", "0+60x120", TEAM_OF_ONE),
        70,
        TEAM,
    ),
    Case("ResumeStuck", "one stays down", gauge(f"{OPERATOR}resuming_targets", "3 1x30", TEAM_OF_ONE), 20, TEAM),
    Case("TargetFailing", "one cannot be changed", gauge(f"{OPERATOR}failing_targets", "1x9", TEAM_OF_ONE), 6, TEAM),
    Case(
        "ResourceNotReady",
        "a target matches nothing",
        gauge(f"{OPERATOR}resource_condition", "0x20", f'{TEAM},name="default",type="Ready"'),
        16,
        f'{TEAM},name="default"',
    ),
    Case(
        "ResourceFlapping",
        "only the canary runs",
        gauge(f"{OPERATOR}flapping_resources", "1x9", TEAM_OF_ONE),
        3,
        TEAM,
    ),
]
QUIET = [
    Case("ServiceDown", "one scope is known", store("0x20"), 10),
    Case("StoreUnreadable", "one replica reads", store("0x9") | {f'{SERVICE}store_up{{{SCOPE},pod="b"}}': "1x9"}, 6),
    Case("StoreUnreadable", "it is back", store("0x5 1x9"), 9),
    Case("BreakerOpen", "it is closed", state("1x20", "0x20"), 10),
    Case("BreakerOpen", "it closed again", state("0x5 1x20", "1x5 0x20"), 10),
    Case("BreakerOpen", "nothing is known", state("NaNx20", "NaNx20") | store("0x20"), 10),
    Case("BreakerOpen", "Redis goes away after the outage", state("0x5 1x20", "1x5 0x20") | store("1x7 0x20"), 15),
    Case(
        "BreakerOpen",
        "Redis is back and the outage is over",
        state("0x5 NaNx5 1x20", "1x5 NaNx5 0x20") | store("1x5 0x5 1x20"),
        15,
    ),
    Case("BreakerFlapping", "two outages", opened("0 0 1 1 1 2x20"), 12),
    Case("BreakerFlapping", "a person opened it", opened("0 0 1 1 1 2 2 2 5x20", "forced_open"), 12),
    Case(
        "BreakerFlapping",
        "two replicas count the same",
        opened("0 0 2x20")
        | {
            f"{SERVICE}transitions_total{{{OPENED},reason='service_unavailable',pod='b'}}": "0 0 2x20",
        },
        12,
    ),
    Case("ErrorRateHigh", "a few calls fail", gauge(f"{SERVICE}error_ratio", "0.2x20"), 10),
    Case("ErrorRateHigh", "nobody calls", gauge(f"{SERVICE}error_ratio", "0.5x3 NaNx20") | store("1x30"), 10),
    Case("KeyInvalid", "it works", upstream("api_key_invalid", "0x20") | upstream("api_key_missing", "0x20"), 10),
    Case("CreditsExhausted", "there is credit", upstream("credits_exhausted", "0x20"), 10),
    Case("CreditLow", "there is enough", gauge(f"{SERVICE}balance_usd", "50x20"), 10),
    Case("CreditLow", "the key has no limit", gauge(f"{SERVICE}balance_usd", "NaNx20"), 10),
    Case("CreditRunningOut", "nothing is spent", gauge(f"{SERVICE}credit_seconds_to_empty", "Infx30"), 20),
    Case("CreditRunningOut", "the rate is unknown", gauge(f"{SERVICE}credit_seconds_to_empty", "NaNx30"), 20),
    Case("ChecksStale", "checks are made", gauge(f"{SERVICE}state_age_seconds", "120x30"), 20),
    Case(
        "OverrideStanding",
        "it is renewed after a look",
        gauge(f"{SERVICE}override_active", "1x200 0 1x100", f'{SCOPE},kind="disabled"'),
        290,
    ),
    Case(
        "WebhookFailing",
        "all were sent",
        gauge(f"{SERVICE}webhook_events_total", "0x30", f'{SCOPE},result="dropped"')
        | gauge(f"{SERVICE}webhook_events_total", "0+1x30", f'{SCOPE},result="sent"'),
        20,
    ),
    Case(
        "VersionsDiffer",
        "all are the same",
        {
            f'{SERVICE}build_info{{version="0.2.0",pod="a"}}': "1x80",
            f'{OPERATOR}build_info{{version="0.2.0",pod="b"}}': "1x80",
        },
        70,
    ),
    Case("WorkersDiffer", "all are the same", workers("1.0.0", "aa", "3x80"), 70),
    Case(
        "WorkersDiffer", "a rollout ended", workers("1.0.0", "aa", "3x30 0x50") | workers("1.1.0", "aa", "3x80"), 70
    ),
    Case("OperatorDown", "it is there", gauge(f"{OPERATOR}build_info", "1x20", 'version="1"'), 10),
    Case(
        "NoLeader",
        "one leads and one stands by",
        gauge(f"{OPERATOR}leader", "1x9", f'{OWN},job="operator",pod="a"')
        | gauge(f"{OPERATOR}leader", "0x9", f'{OWN},job="operator",pod="b"'),
        5,
    ),
    Case("NoLeader", "a takeover takes a minute", gauge(f"{OPERATOR}leader", "1 1 0 1x9", OWN), 8),
    Case("OperatorStateUnknown", "it reads", gauge(f"{OPERATOR}state_age_seconds", "1x20"), 10),
    Case("PausedLong", "for half an hour", gauge(f"{OPERATOR}longest_pause_seconds", "0+60x30", TEAM_OF_ONE), 30),
    Case("ResumeStuck", "they came back", gauge(f"{OPERATOR}resuming_targets", "3 2 1 0x30", TEAM_OF_ONE), 20),
    Case("TargetFailing", "the next try succeeded", gauge(f"{OPERATOR}failing_targets", "1 1 0x9", TEAM_OF_ONE), 8),
    Case(
        "ResourceNotReady",
        "it is unknown while Redis is away",
        gauge(f"{OPERATOR}resource_condition", "1 NaNx30", f'{TEAM},name="default",type="Ready"'),
        20,
    ),
    Case(
        "ResourceNotReady",
        "another condition is false",
        gauge(f"{OPERATOR}resource_condition", "0x30", f'{TEAM},name="default",type="Paused"'),
        20,
    ),
    Case("ResourceFlapping", "none flaps", gauge(f"{OPERATOR}flapping_resources", "0x9", TEAM_OF_ONE), 5),
]


def named(case: Case) -> str:
    return f"{case.alert}: {case.why}"


def spelt(values: str) -> str:
    """Promtool repeats numbers only, as in ``0x9``; here ``NaNx9`` is repeated too."""
    return REPEATED.sub(lambda found: " ".join([found[1]] * (int(found[2]) + 1)), values)


def judge(case: Case, expected: list[dict[str, Any]], folder: Path) -> None:
    """Run promtool on the real rules."""
    alert = f"OpenRouterGuard{case.alert}"
    expression = f'ALERTS{{alertname="{alert}",alertstate="firing"}}'
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": spelt(values)} for name, values in case.series.items()],
        "promql_expr_test": [{"expr": expression, "eval_time": f"{case.minute}m", "exp_samples": expected}],
    }
    file = folder / "test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]}))
    done = subprocess.run([find("promtool"), "test", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("case", FIRING, ids=named)
def test_it_fires(case: Case, tmp_path: Path) -> None:
    alert = f"OpenRouterGuard{case.alert}"
    severity = alerts()[alert]["labels"]["severity"]
    labels = ",".join([f'alertname="{alert}",alertstate="firing",severity="{severity}"', case.labels or ""]).rstrip(
        ","
    )
    judge(case, [{"labels": f"ALERTS{{{labels}}}", "value": 1}], tmp_path)


@pytest.mark.parametrize("case", QUIET, ids=named)
def test_it_is_quiet(case: Case, tmp_path: Path) -> None:
    judge(case, [], tmp_path)


def test_each_alert_is_tried_in_both_directions() -> None:
    known = {name.removeprefix("OpenRouterGuard") for name in alerts()}
    assert {case.alert for case in FIRING} == known
    assert {case.alert for case in QUIET} == known


@pytest.mark.parametrize("name", alerts())
def test_each_says_how_bad_it_is_what_it_means_and_what_to_do(name: str) -> None:
    rule = alerts()[name]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert all(rule["annotations"].values())


def test_promtool_finds_nothing_wrong() -> None:
    done = subprocess.run([find("promtool"), "check", "rules", str(RULES)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
