"""Every setting with its default and its readers, as in docs/configuration.md."""

from __future__ import annotations

from dataclasses import dataclass

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


SETTINGS = (
    Setting("REDIS_URL", "", "all"),
    Setting("OPENROUTER_GUARD_SCOPE", "default", "all"),
    Setting("OPENROUTER_GUARD_WORKER_ID", "host and process", "workers"),
    Setting("OPENROUTER_GUARD_REDIS_TIMEOUT_SECONDS", "1", "all"),
    Setting("OPENROUTER_GUARD_LOG_LEVEL", "INFO", "service, operator"),
    Setting("OPENROUTER_GUARD_LOG_FORMAT", "text", "service, operator"),
    Setting("OPENROUTER_GUARD_TLS_CERT_FILE", "", "service, operator"),
    Setting("OPENROUTER_GUARD_TLS_KEY_FILE", "", "service, operator"),
    Setting("OPENROUTER_GUARD_FAILURE_THRESHOLD", "5", "all"),
    Setting("OPENROUTER_GUARD_REFUSALS_WANTED", "2", "all"),
    Setting("OPENROUTER_GUARD_CONFIRM_SECONDS", "10", "all"),
    Setting("OPENROUTER_GUARD_FIRST_WAIT_SECONDS", "6", "all"),
    Setting("OPENROUTER_GUARD_LONGEST_WAIT_SECONDS", "15", "all"),
    Setting("OPENROUTER_GUARD_RESET_TIMEOUT_SECONDS", "120", "all"),
    Setting("OPENROUTER_GUARD_MAX_RESET_TIMEOUT_SECONDS", "960", "all"),
    Setting("OPENROUTER_GUARD_STABLE_SECONDS", "600", "all"),
    Setting("OPENROUTER_GUARD_PERMITS", "2", "all"),
    Setting("OPENROUTER_GUARD_NEXT_TRIAL_SECONDS", "10", "all"),
    Setting("OPENROUTER_GUARD_PERMIT_LEASE_SECONDS", "15", "all"),
    Setting("OPENROUTER_GUARD_TRIAL_CALL_SECONDS", "600", "all"),
    Setting("OPENROUTER_GUARD_TRIAL_WAIT_SECONDS", "60", "service"),
    Setting("OPENROUTER_GUARD_GOOD_CHECKS", "2", "service"),
    Setting("OPENROUTER_GUARD_RAMP_SECONDS", "30", "all"),
    Setting("OPENROUTER_GUARD_COOLDOWN_SECONDS", "5", "all"),
    Setting("OPENROUTER_GUARD_MAX_COOLDOWN_SECONDS", "60", "all"),
    Setting("OPENROUTER_GUARD_FAILURE_RATE", "off", "all"),
    Setting("OPENROUTER_GUARD_SLOW_RATE", "off", "all"),
    Setting("OPENROUTER_GUARD_SLOW_SECONDS", "60", "all"),
    Setting("OPENROUTER_GUARD_WINDOW_SECONDS", "60", "all"),
    Setting("OPENROUTER_GUARD_WINDOW_CALLS", "100", "all"),
    Setting("OPENROUTER_API_KEY", "", "service", is_secret=True),
    Setting("OPENROUTER_MANAGEMENT_KEY", "", "service", is_secret=True),
    Setting("OPENROUTER_GUARD_FURTHER_SCOPES", "", "service"),
    Setting("OPENROUTER_GUARD_HEALTH_URLS", "", "service", is_secret=True),
    Setting("OPENROUTER_BASE_URL", "https://openrouter.ai/api/v1", "service"),
    Setting("OPENROUTER_GUARD_RECHECK_SECONDS", "60", "service"),
    Setting("OPENROUTER_GUARD_FRESH_SECONDS", "60", "service"),
    Setting("OPENROUTER_GUARD_MIN_FRESH_SECONDS", "half", "service"),
    Setting("OPENROUTER_GUARD_MAX_FRESH_SECONDS", "twice", "service"),
    Setting("OPENROUTER_GUARD_STALE_SECONDS", "300", "service"),
    Setting("OPENROUTER_GUARD_CHECK_SLOT_SECONDS", "60", "service"),
    Setting("OPENROUTER_GUARD_CHECK_TIMEOUT_SECONDS", "10", "service"),
    Setting("OPENROUTER_GUARD_WRITE_TOKEN", "", "service", is_secret=True),
    Setting("OPENROUTER_GUARD_REPORT_TOKEN", "", "service", is_secret=True),
    Setting("OPENROUTER_GUARD_REPORTER_NAMESPACES", "", "service"),
    Setting("OPENROUTER_GUARD_REPORTER_AUDIENCE", "openrouter-guard", "service"),
    Setting("OPENROUTER_GUARD_READ_TOKEN", "", "service", is_secret=True),
    Setting("OPENROUTER_GUARD_CORS_ORIGINS", "", "service"),
    Setting("OPENROUTER_GUARD_WEBHOOK_URL", "", "service", is_secret=True),
    Setting("OPENROUTER_GUARD_WEBHOOK_FORMAT", "json", "service"),
    Setting("OPENROUTER_GUARD_ALERT_ERROR_RATE", "0.25", "service"),
    Setting("OPENROUTER_GUARD_ALERT_CALLS", "20", "service"),
    Setting("OPENROUTER_GUARD_MAX_STREAMS", "100", "service"),
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
