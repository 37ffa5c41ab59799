"""Every setting with its default and its readers, as in docs/configuration.md."""

from __future__ import annotations

from dataclasses import dataclass

from openrouter_guard.settings import Settings

__all__ = ["SETTINGS", "Setting"]


@dataclass(frozen=True, slots=True)
class Setting:
    """One environment variable.

    Attributes:
        default: The default as text; empty if there is none.
        readers: The parts that read it.
        is_secret: Whether its value is never shown.
    """

    name: str
    default: str
    readers: str
    is_secret: bool = False


_KNOWN = Settings("redis://localhost")
"""The settings of an environment with an address and nothing else: their defaults."""


def _text(default: float, zero: str = "") -> str:
    return f"{default:g}" if default else zero


SETTINGS = (
    Setting("REDIS_URL", "", "all"),
    Setting("OPENROUTER_GUARD_SCOPE", _KNOWN.scope, "all"),
    Setting("OPENROUTER_GUARD_WORKER_ID", "host and process", "workers"),
    Setting("OPENROUTER_GUARD_REDIS_TIMEOUT_SECONDS", _text(_KNOWN.redis_timeout_s), "all"),
    Setting("OPENROUTER_GUARD_LOG_LEVEL", "INFO", "service, operator"),
    Setting("OPENROUTER_GUARD_LOG_FORMAT", "text", "service, operator"),
    Setting("OPENROUTER_GUARD_TLS_CERT_FILE", "", "service, operator"),
    Setting("OPENROUTER_GUARD_TLS_KEY_FILE", "", "service, operator"),
    Setting("OPENROUTER_GUARD_FAILURE_THRESHOLD", _text(_KNOWN.policy.failure_threshold), "all"),
    Setting("OPENROUTER_GUARD_REFUSALS_WANTED", _text(_KNOWN.policy.refusals_wanted), "all"),
    Setting("OPENROUTER_GUARD_CONFIRM_SECONDS", _text(_KNOWN.policy.confirm_s), "all"),
    Setting("OPENROUTER_GUARD_FIRST_WAIT_SECONDS", _text(_KNOWN.policy.first_wait_s), "all"),
    Setting("OPENROUTER_GUARD_LONGEST_WAIT_SECONDS", _text(_KNOWN.policy.longest_wait_s), "all"),
    Setting("OPENROUTER_GUARD_RESET_TIMEOUT_SECONDS", _text(_KNOWN.policy.reset_timeout_s), "all"),
    Setting("OPENROUTER_GUARD_MAX_RESET_TIMEOUT_SECONDS", _text(_KNOWN.policy.max_reset_timeout_s), "all"),
    Setting("OPENROUTER_GUARD_STABLE_SECONDS", _text(_KNOWN.policy.stable_s), "all"),
    Setting("OPENROUTER_GUARD_PERMITS", _text(_KNOWN.policy.permits), "all"),
    Setting("OPENROUTER_GUARD_NEXT_TRIAL_SECONDS", _text(_KNOWN.policy.next_trial_s), "all"),
    Setting("OPENROUTER_GUARD_PERMIT_LEASE_SECONDS", _text(_KNOWN.policy.permit_lease_s), "all"),
    Setting("OPENROUTER_GUARD_TRIAL_CALL_SECONDS", _text(_KNOWN.policy.trial_call_s), "all"),
    Setting("OPENROUTER_GUARD_TRIAL_WAIT_SECONDS", _text(_KNOWN.policy.trial_wait_s), "service"),
    Setting("OPENROUTER_GUARD_GOOD_CHECKS", _text(_KNOWN.policy.good_checks), "service"),
    Setting("OPENROUTER_GUARD_RAMP_SECONDS", _text(_KNOWN.policy.ramp_s), "all"),
    Setting("OPENROUTER_GUARD_COOLDOWN_SECONDS", _text(_KNOWN.policy.cooldown_s), "all"),
    Setting("OPENROUTER_GUARD_MAX_COOLDOWN_SECONDS", _text(_KNOWN.policy.max_cooldown_s), "all"),
    Setting("OPENROUTER_GUARD_FAILURE_RATE", _text(_KNOWN.policy.failure_rate, zero="off"), "all"),
    Setting("OPENROUTER_GUARD_SLOW_RATE", _text(_KNOWN.policy.slow_rate, zero="off"), "all"),
    Setting("OPENROUTER_GUARD_SLOW_SECONDS", _text(_KNOWN.policy.slow_s), "all"),
    Setting("OPENROUTER_GUARD_WINDOW_SECONDS", _text(_KNOWN.policy.window_s), "all"),
    Setting("OPENROUTER_GUARD_WINDOW_CALLS", _text(_KNOWN.policy.window_calls), "all"),
    Setting("OPENROUTER_API_KEY", "", "service", is_secret=True),
    Setting("OPENROUTER_MANAGEMENT_KEY", "", "service", is_secret=True),
    Setting("OPENROUTER_GUARD_FURTHER_SCOPES", "", "service"),
    Setting("OPENROUTER_GUARD_HEALTH_URLS", "", "service", is_secret=True),
    Setting("OPENROUTER_BASE_URL", _KNOWN.base_url, "service"),
    Setting("OPENROUTER_GUARD_RECHECK_SECONDS", _text(_KNOWN.policy.recheck_s), "service"),
    Setting("OPENROUTER_GUARD_FRESH_SECONDS", _text(_KNOWN.thresholds.fresh_s), "service"),
    Setting("OPENROUTER_GUARD_MIN_FRESH_SECONDS", _text(_KNOWN.thresholds.min_fresh_s, zero="half"), "service"),
    Setting("OPENROUTER_GUARD_MAX_FRESH_SECONDS", _text(_KNOWN.thresholds.max_fresh_s, zero="twice"), "service"),
    Setting("OPENROUTER_GUARD_STALE_SECONDS", _text(_KNOWN.thresholds.stale_s), "service"),
    Setting("OPENROUTER_GUARD_CHECK_SLOT_SECONDS", _text(_KNOWN.thresholds.check_slot_s), "service"),
    Setting("OPENROUTER_GUARD_CHECK_TIMEOUT_SECONDS", _text(_KNOWN.thresholds.check_timeout_s), "service"),
    Setting("OPENROUTER_GUARD_WRITE_TOKEN", "", "service", is_secret=True),
    Setting("OPENROUTER_GUARD_REPORT_TOKEN", "", "service", is_secret=True),
    Setting("OPENROUTER_GUARD_REPORTER_NAMESPACES", "", "service"),
    Setting("OPENROUTER_GUARD_REPORTER_AUDIENCE", "openrouter-guard", "service"),
    Setting("OPENROUTER_GUARD_READ_TOKEN", "", "service", is_secret=True),
    Setting("OPENROUTER_GUARD_CORS_ORIGINS", "", "service"),
    Setting("OPENROUTER_GUARD_WEBHOOK_URL", "", "service", is_secret=True),
    Setting("OPENROUTER_GUARD_WEBHOOK_FORMAT", _KNOWN.webhook_format, "service"),
    Setting("OPENROUTER_GUARD_WEBHOOK_SECRET", "", "service", is_secret=True),
    Setting("OPENROUTER_GUARD_WEBHOOK_SECRET_FILE", "", "service"),
    Setting("OPENROUTER_GUARD_PUBLIC_URL", "", "service"),
    Setting("OPENROUTER_GUARD_ALERT_ERROR_RATE", _text(_KNOWN.thresholds.alert_error_rate), "service"),
    Setting("OPENROUTER_GUARD_ALERT_CALLS", _text(_KNOWN.thresholds.alert_calls), "service"),
    Setting("OPENROUTER_GUARD_MAX_STREAMS", _text(_KNOWN.thresholds.max_streams), "service"),
    Setting("OPENROUTER_GUARD_NAMESPACES", "the whole cluster", "operator"),
    Setting("OPENROUTER_GUARD_KINDS", "Deployment,StatefulSet,CronJob,Job", "operator"),
    Setting("OPENROUTER_GUARD_ACCESS", "all may use default, none override", "operator"),
    Setting("OPENROUTER_GUARD_READ_SECRETS", "false", "operator"),
    Setting("OPENROUTER_GUARD_STRICT_X509", "true", "operator, service"),
    Setting("OPENROUTER_GUARD_CLASS", "default", "operator"),
    Setting("OPENROUTER_GUARD_CLUSTER", "kubernetes", "operator"),
    Setting("OPENROUTER_GUARD_LEASE_NAMESPACE", "the pod's, else default", "operator"),
    Setting("OPENROUTER_GUARD_LEASE_NAME", "openrouter-guard-operator", "operator"),
    Setting("OPENROUTER_GUARD_LEASE_SECONDS", "15", "operator"),
    Setting("OPENROUTER_GUARD_OPERATOR_HOST", "127.0.0.1", "operator"),
    Setting("OPENROUTER_GUARD_OPERATOR_PORT", "8081", "operator"),
)
