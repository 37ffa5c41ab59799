"""Settings come from the environment; those that cannot be used are named where they are given."""

from __future__ import annotations

import pytest

from openrouter_guard import ConfigurationError, Guard, Settings
from openrouter_guard.rules.breaker import Policy


class TestRules:
    @pytest.mark.parametrize(
        ("name", "text", "policy"),
        [
            ("FAILURE_THRESHOLD", "7", Policy(failure_threshold=7)),
            ("REFUSALS_WANTED", "3", Policy(refusals_wanted=3)),
            ("CONFIRM_SECONDS", "2.5", Policy(confirm_s=2.5)),
            ("RESET_TIMEOUT_SECONDS", "30", Policy(reset_timeout_s=30)),
            ("MAX_RESET_TIMEOUT_SECONDS", "240", Policy(max_reset_timeout_s=240)),
            ("RECHECK_SECONDS", "5", Policy(recheck_s=5)),
            ("STABLE_SECONDS", "60", Policy(stable_s=60)),
            ("PERMITS", "4", Policy(permits=4)),
            ("PERMIT_LEASE_SECONDS", "20", Policy(permit_lease_s=20)),
            ("TRIAL_CALL_SECONDS", "60", Policy(trial_call_s=60)),
            ("TRIAL_WAIT_SECONDS", "90", Policy(trial_wait_s=90)),
            ("GOOD_CHECKS", "1", Policy(good_checks=1)),
            ("RAMP_SECONDS", "10", Policy(ramp_s=10)),
            ("COOLDOWN_SECONDS", "1", Policy(cooldown_s=1)),
            ("MAX_COOLDOWN_SECONDS", "120", Policy(max_cooldown_s=120)),
            ("FAILURE_RATE", "0.5", Policy(failure_rate=0.5)),
            ("SLOW_RATE", "1", Policy(slow_rate=1)),
            ("SLOW_SECONDS", "30", Policy(slow_s=30)),
            ("WINDOW_SECONDS", "600", Policy(window_s=600)),
            ("WINDOW_CALLS", "20", Policy(window_calls=20)),
        ],
    )
    def test_a_variable_sets_one_rule_and_leaves_the_others(self, name: str, text: str, policy: Policy) -> None:
        environ = {"REDIS_URL": "redis://localhost", f"OPENROUTER_GUARD_{name}": text}
        assert Settings.from_env(environ).policy == policy


class TestBadSettings:
    def test_a_wrong_address_fails_where_it_was_given(self) -> None:
        with pytest.raises(ConfigurationError, match="REDIS_URL"):
            Guard.from_url("localhost")

    def test_a_missing_address_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("REDIS_URL", raising=False)
        with pytest.raises(ConfigurationError, match="REDIS_URL is not set"):
            Guard.from_env()

    def test_a_worker_needs_no_key_of_openrouter(self, monkeypatch: pytest.MonkeyPatch, redis_url: str) -> None:
        monkeypatch.delenv("OPENROUTER_API_KEY", raising=False)
        monkeypatch.setenv("REDIS_URL", redis_url)
        with Guard.from_env() as guard, guard.call():
            pass

    @pytest.mark.parametrize("text", ["0", "-1", "five", "inf", "nan"])
    def test_a_setting_that_cannot_be_used_is_named(self, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        monkeypatch.setenv("REDIS_URL", "redis://localhost")
        monkeypatch.setenv("OPENROUTER_GUARD_RESET_TIMEOUT_SECONDS", text)
        with pytest.raises(ConfigurationError, match="OPENROUTER_GUARD_RESET_TIMEOUT_SECONDS is"):
            Guard.from_env()

    @pytest.mark.parametrize(
        ("name", "text"), [("FAILURE_RATE", "50"), ("SLOW_RATE", "0"), ("WINDOW_SECONDS", "601")]
    )
    def test_one_that_is_too_large_is_named(self, name: str, text: str) -> None:
        environ = {"REDIS_URL": "redis://localhost", f"OPENROUTER_GUARD_{name}": text}
        with pytest.raises(ConfigurationError, match=f"OPENROUTER_GUARD_{name} is '{text}': write .* at most"):
            Settings.from_env(environ)

    def test_secrets_are_in_no_representation(self) -> None:
        shown = repr(Settings("redis://user:hunter2@host", api_key="sk-or-secret"))
        assert "hunter2" not in shown
        assert "sk-or" not in shown
