"""Settings that cannot be used are named where they are given."""

from __future__ import annotations

import pytest

from openrouter_guard import ConfigurationError, Guard, Settings


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

    def test_secrets_are_in_no_representation(self) -> None:
        shown = repr(Settings("redis://user:hunter2@host", api_key="sk-or-secret"))
        assert "hunter2" not in shown
        assert "sk-or" not in shown
