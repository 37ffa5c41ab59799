"""Settings from the environment; errors name the invalid variable."""

from __future__ import annotations

import logging

import pytest

from openrouter_guard import ConfigurationError, Guard, Settings
from openrouter_guard.rules.breaker import Policy
from openrouter_guard.variables import NAMES, unknown


def given(settings: dict[str, str]) -> dict[str, str]:
    return {"REDIS_URL": "redis://localhost"} | {f"OPENROUTER_GUARD_{name}": text for name, text in settings.items()}


class TestRules:
    @pytest.mark.parametrize(
        ("name", "text", "policy"),
        [
            ("FAILURE_THRESHOLD", "7", Policy(failure_threshold=7)),
            ("REFUSALS_WANTED", "3", Policy(refusals_wanted=3)),
            ("CONFIRM_SECONDS", "2.5", Policy(confirm_s=2.5)),
            ("FIRST_WAIT_SECONDS", "12", Policy(first_wait_s=12)),
            ("LONGEST_WAIT_SECONDS", "60", Policy(longest_wait_s=60)),
            ("RESET_TIMEOUT_SECONDS", "30", Policy(reset_timeout_s=30)),
            ("MAX_RESET_TIMEOUT_SECONDS", "240", Policy(max_reset_timeout_s=240)),
            ("RECHECK_SECONDS", "5", Policy(recheck_s=5)),
            ("STABLE_SECONDS", "60", Policy(stable_s=60)),
            ("PERMITS", "4", Policy(permits=4)),
            ("NEXT_TRIAL_SECONDS", "3", Policy(next_trial_s=3)),
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

    @pytest.mark.parametrize("text", ["0", "-1", "five", "inf", "nan", "1e9", "1_0", "\N{ARABIC-INDIC DIGIT FIVE}"])
    def test_a_setting_that_cannot_be_used_is_named(self, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        monkeypatch.setenv("REDIS_URL", "redis://localhost")
        monkeypatch.setenv("OPENROUTER_GUARD_RESET_TIMEOUT_SECONDS", text)
        with pytest.raises(ConfigurationError, match="OPENROUTER_GUARD_RESET_TIMEOUT_SECONDS is"):
            Guard.from_env()

    @pytest.mark.parametrize(
        ("name", "text"),
        [("FAILURE_RATE", "50"), ("SLOW_RATE", "0"), ("WINDOW_SECONDS", "601"), ("PERMITS", "1000001")],
    )
    def test_one_that_is_too_large_is_named(self, name: str, text: str) -> None:
        environ = {"REDIS_URL": "redis://localhost", f"OPENROUTER_GUARD_{name}": text}
        with pytest.raises(ConfigurationError, match=f"OPENROUTER_GUARD_{name} is '{text}': write .* at most"):
            Settings.from_env(environ)

    @pytest.mark.parametrize(
        ("settings", "sentence"),
        [
            pytest.param(
                {"RESET_TIMEOUT_SECONDS": "2000"},
                "RESET_TIMEOUT_SECONDS is 2000, above OPENROUTER_GUARD_MAX_RESET_TIMEOUT_SECONDS, which is 960 by "
                "default: lower the first or raise the second",
                id="a wait that would silently become the longest",
            ),
            pytest.param(
                {"FRESH_SECONDS": "400", "STALE_SECONDS": "300"},
                "FRESH_SECONDS is 400, above OPENROUTER_GUARD_STALE_SECONDS, which is 300",
                id="fresh for longer than not stale",
            ),
            pytest.param({"STALE_SECONDS": "30"}, "FRESH_SECONDS is 60 by default, above", id="a default against it"),
            pytest.param(
                {"MIN_FRESH_SECONDS": "61"}, "MIN_FRESH_SECONDS is 61, above", id="the least above the usual"
            ),
            pytest.param(
                {"MAX_FRESH_SECONDS": "59"}, "FRESH_SECONDS is 60 by default, above", id="the usual above it"
            ),
            pytest.param({"MAX_FRESH_SECONDS": "301"}, "MAX_FRESH_SECONDS is 301, above", id="the most above stale"),
            pytest.param({"COOLDOWN_SECONDS": "61"}, "COOLDOWN_SECONDS is 61, above", id="a first pause"),
            pytest.param({"PERMIT_LEASE_SECONDS": "601"}, "PERMIT_LEASE_SECONDS is 601, above", id="a lease"),
            pytest.param({"TRIAL_CALL_SECONDS": "10"}, "PERMIT_LEASE_SECONDS is 15 by default, above", id="a call"),
            pytest.param({"RECHECK_SECONDS": "121"}, "RECHECK_SECONDS is 121, above", id="checked after the wait"),
            pytest.param(
                {"FIRST_WAIT_SECONDS": "16"}, "FIRST_WAIT_SECONDS is 16, above", id="the first is the longest"
            ),
            pytest.param(
                {"LONGEST_WAIT_SECONDS": "5"},
                "FIRST_WAIT_SECONDS is 6 by default, above",
                id="shorter than the first",
            ),
            pytest.param(
                {"LONGEST_WAIT_SECONDS": "121"}, "LONGEST_WAIT_SECONDS is 121, above", id="longer than the promise"
            ),
            pytest.param(
                {"FIRST_WAIT_SECONDS": "12", "RESET_TIMEOUT_SECONDS": "11"},
                "FIRST_WAIT_SECONDS is 12, above OPENROUTER_GUARD_RESET_TIMEOUT_SECONDS, which is 11",
                id="the first, longer than the promise",
            ),
            pytest.param({"CHECK_SLOT_SECONDS": "301"}, "CHECK_SLOT_SECONDS is 301, above", id="checked too seldom"),
            pytest.param({"CHECK_TIMEOUT_SECONDS": "61"}, "CHECK_TIMEOUT_SECONDS is 61, above", id="two at a time"),
            pytest.param({"REDIS_TIMEOUT_SECONDS": "16"}, "REDIS_TIMEOUT_SECONDS is 16, above", id="a lease lapses"),
        ],
    )
    def test_two_that_contradict_each_other_are_both_named(self, settings: dict[str, str], sentence: str) -> None:
        with pytest.raises(ConfigurationError) as refused:
            Settings.from_env(given(settings))
        assert str(refused.value).startswith(f"OPENROUTER_GUARD_{sentence}")

    @pytest.mark.parametrize(
        "settings",
        [
            {"RESET_TIMEOUT_SECONDS": "960"},
            {"RESET_TIMEOUT_SECONDS": "2000", "MAX_RESET_TIMEOUT_SECONDS": "2000"},
            {"RESET_TIMEOUT_SECONDS": "2"},
            {"PERMIT_LEASE_SECONDS": "0.5"},
            {"FRESH_SECONDS": "1", "STALE_SECONDS": "3", "CHECK_SLOT_SECONDS": "1"},
            {"FRESH_SECONDS": "200"},
        ],
    )
    def test_a_setting_that_is_at_its_bound_or_leaves_a_default_out_of_reach_is_taken(
        self, settings: dict[str, str]
    ) -> None:
        Settings.from_env(given(settings))

    @pytest.mark.parametrize("name", ["SCOPE", "FURTHER_SCOPES"])
    def test_a_scope_that_cannot_be_used_is_named_with_its_variable(self, name: str) -> None:
        with pytest.raises(ConfigurationError, match=f"OPENROUTER_GUARD_{name}: scope 'Team A' cannot be used"):
            Settings.from_env(given({name: "Team A"}))

    @pytest.mark.parametrize("name", ["SCOPE", "FURTHER_SCOPES", "PERMITS"])
    def test_of_a_long_value_only_the_beginning_is_shown(self, name: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            Settings.from_env(given({name: "x" * 5_000}))
        assert len(str(caught.value)) < 300

    def test_secrets_are_in_no_representation(self) -> None:
        shown = repr(Settings("redis://user:hunter2@host", api_key="sk-or-secret"))
        assert "hunter2" not in shown
        assert "sk-or" not in shown


class TestTypos:
    @pytest.mark.parametrize(
        ("name", "advice"),
        [
            ("OPENROUTER_GUARD_SCOP", "did you mean OPENROUTER_GUARD_SCOPE?"),
            ("OPENROUTER_GUARD_FAILURE_TRESHOLD", "did you mean OPENROUTER_GUARD_FAILURE_THRESHOLD?"),
            ("OPENROUTER_GUARD_RESET_TIMEOUT", "did you mean OPENROUTER_GUARD_RESET_TIMEOUT_SECONDS?"),
            ("OPENROUTER_GUARD_FRESH", "did you mean OPENROUTER_GUARD_FRESH_SECONDS?"),
            ("OPENROUTER_GUARD_API_KEY", "did you mean OPENROUTER_API_KEY?"),
            ("OPENROUTER_GUARD_REDIS_URL", "did you mean REDIS_URL?"),
            ("openrouter_guard_permits", "did you mean OPENROUTER_GUARD_PERMITS?"),
            ("OPENROUTER_GUARD_COLOUR", "docs/configuration.md lists all that there are"),
        ],
    )
    def test_an_unknown_variable_is_told_with_what_was_meant(self, name: str, advice: str) -> None:
        assert unknown({name: "s3cret"}) == [f"{name} is not a setting and has no effect: {advice}"]

    def test_a_typo_is_logged_once_however_many_guards_are_made(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, redis_url: str
    ) -> None:
        monkeypatch.setenv("REDIS_URL", redis_url)
        monkeypatch.setenv("OPENROUTER_GUARD_PERMIT", "3")
        with caplog.at_level(logging.WARNING), Guard.from_env(), Guard.from_env():
            pass
        sentence = (
            "OPENROUTER_GUARD_PERMIT is not a setting and has no effect: did you mean OPENROUTER_GUARD_PERMITS?"
        )
        assert [record.getMessage() for record in caplog.records] == [sentence]

    @pytest.mark.parametrize(
        "name",
        [
            "OPENROUTER_GUARD_SERVICE_HOST",
            "OPENROUTER_GUARD_SERVICE_PORT_HTTP",
            "OPENROUTER_GUARD_PORT",
            "OPENROUTER_GUARD_PORT_80_TCP_ADDR",
            "OPENROUTER_GUARD_METRICS_SERVICE_PORT",
        ],
    )
    def test_what_kubernetes_says_of_a_service_of_that_name_is_no_typo(self, name: str) -> None:
        assert unknown({name: "tcp://10.0.0.1:80"}) == []

    @pytest.mark.parametrize("name", sorted(NAMES))
    def test_a_setting_of_any_part_is_known_to_all(self, name: str) -> None:
        assert unknown({f"OPENROUTER_GUARD_{name}": "1"}) == []

    def test_a_key_of_a_scope_that_there_is_not_is_told(self, caplog: pytest.LogCaptureFixture) -> None:
        keys = {"OPENROUTER_API_KEY_TEAMA": "sk-or-v1-secret", "OPENROUTER_MANAGEMENT_KEY_TEAM_B": "sk-or-v1-secret"}
        Settings.from_env(given({"FURTHER_SCOPES": "team-a,team-b"}) | keys)
        Settings.from_env({"REDIS_URL": "redis://localhost", "OPENROUTER_API_KEY_OF_SOMETHING_ELSE": "x"})
        (told,) = [record.getMessage() for record in caplog.records]
        assert told.startswith(
            "OPENROUTER_API_KEY_TEAMA is of no scope in OPENROUTER_GUARD_FURTHER_SCOPES and changes"
        )
        assert told.endswith("nothing: did you mean OPENROUTER_API_KEY_TEAM_A?")
