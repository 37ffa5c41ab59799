"""The settings, read from the environment once, at the edge."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TypeVar

from .address import Address, parse_address
from .certificates import Certificate
from .errors import ConfigurationError
from .keys import DEFAULT_SCOPE, Keys
from .rules.breaker import Policy
from .rules.redaction import redact, remember, secrets_in
from .rules.units import DAY_S
from .tokens import Tokens, tokens_in
from .variables import PREFIX as _PREFIX
from .variables import unknown, unused_keys
from .webhook_settings import WebhookFormat, secret_keys, webhook_format

__all__ = [
    "DEFAULT_BASE_URL",
    "FurtherScope",
    "Settings",
    "Thresholds",
    "Tokens",
    "WebhookFormat",
    "api_key_variable",
]

DEFAULT_BASE_URL = "https://openrouter.ai/api/v1"
LONGEST_S = 30 * DAY_S
MOST = 1_000_000
_SHOWN = 60
"""An error shows this much of a wrong value."""
_ADDRESS = re.compile(r"https?://[^\s/?#]+(:\d{1,5})?([/?]\S*)?")
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:\d{1,5})?|https?://\[[0-9a-fA-F:]+\](:\d{1,5})?")

T = TypeVar("T", int, float)
# In each pair the first may not be above the second. Pairs with True are checked only if the first is set: an
# unreachable default still does something useful.
_ORDER = (
    ("FIRST_WAIT_SECONDS", "LONGEST_WAIT_SECONDS", False),
    ("FIRST_WAIT_SECONDS", "RESET_TIMEOUT_SECONDS", True),
    ("LONGEST_WAIT_SECONDS", "RESET_TIMEOUT_SECONDS", True),
    ("RESET_TIMEOUT_SECONDS", "MAX_RESET_TIMEOUT_SECONDS", False),
    ("COOLDOWN_SECONDS", "MAX_COOLDOWN_SECONDS", False),
    ("PERMIT_LEASE_SECONDS", "TRIAL_CALL_SECONDS", False),
    ("MIN_FRESH_SECONDS", "FRESH_SECONDS", True),
    ("FRESH_SECONDS", "MAX_FRESH_SECONDS", False),
    ("FRESH_SECONDS", "STALE_SECONDS", False),
    ("MAX_FRESH_SECONDS", "STALE_SECONDS", True),
    ("RECHECK_SECONDS", "RESET_TIMEOUT_SECONDS", True),
    ("CHECK_SLOT_SECONDS", "STALE_SECONDS", True),
    ("CHECK_TIMEOUT_SECONDS", "CHECK_SLOT_SECONDS", True),
    ("REDIS_TIMEOUT_SECONDS", "PERMIT_LEASE_SECONDS", True),
)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Ages of the upstream's state, other times of the service, in seconds, and its limits.

    Attributes:
        fresh_s: Up to this age, the state is served from the cache.
        min_fresh_s: Replaces ``fresh_s`` while errors are frequent; then checks need no request. 0: half of it.
        max_fresh_s: Replaces ``fresh_s`` while calls succeed. 0: twice as long.
        stale_s: Up to this age it is served at once, and refreshed in the background.
        check_slot_s: One health check of the upstream in this time, for the whole fleet.
        check_timeout_s: Time limit of a health check.
        alert_error_rate: Share of failed calls that puts an alert into the history; it ends at half of it.
        alert_calls: Calls in five minutes that this needs at least: fewer say little.
        max_streams: Number of clients of one process that may listen to events, or wait at the gate.
    """

    fresh_s: float = 60.0
    min_fresh_s: float = 0.0
    max_fresh_s: float = 0.0
    stale_s: float = 300.0
    check_slot_s: float = 60.0
    check_timeout_s: float = 10.0
    alert_error_rate: float = 0.25
    alert_calls: int = 20
    max_streams: int = 100


@dataclass(frozen=True, slots=True)
class FurtherScope:
    """Another scope beside the first, with keys of its own; empty if there is none."""

    scope: str
    api_key: str = field(default="", repr=False)
    management_key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one process.

    Attributes:
        redis_url: Address of the shared state.
        scope: The shared breaker state: one per API key or team.
        api_key: OpenRouter's API key; empty if there is none. Left out of every representation.
        base_url: Address of OpenRouter's API, without a slash at the end.
        management_key: Key that may read the account's credit; empty if there is none. Left out like the API key.
        webhook_url: Gets every change of the breaker; empty: none. It may hold a secret.
        webhook_format: Format of these requests.
        webhook_secret: Secrets that sign them, separated by spaces; empty: unsigned.
        webhook_secret_file: A file with such secrets, read by the service alone; empty: none.
        public_url: Address of the service for people, without a slash at the end; empty if unknown.
        further: Further scopes of the service.
        health_urls: Further addresses that must answer below 300 for a good check; they may hold secrets.
        redis_timeout_s: How long Redis may take before it counts as away.
        worker_id: The name of this worker in reports; empty: host name and process.
        cors_origins: Sites whose pages may read the API; none unless named.
        certificate: The certificate of the service and the operator; None: without TLS.
        redis: The address, parsed.

    Raises:
        ConfigurationError: On creation, if it is not an address of Redis, or cannot hold the scope.
    """

    redis_url: str = field(repr=False)
    scope: str = DEFAULT_SCOPE
    api_key: str = field(default="", repr=False)
    base_url: str = DEFAULT_BASE_URL
    policy: Policy = Policy()
    thresholds: Thresholds = Thresholds()
    redis_timeout_s: float = 1.0
    worker_id: str = ""
    tokens: Tokens = Tokens()
    cors_origins: tuple[str, ...] = ()
    management_key: str = field(default="", repr=False)
    health_urls: tuple[str, ...] = field(default=(), repr=False)
    webhook_url: str = field(default="", repr=False)
    webhook_format: WebhookFormat = "json"
    webhook_secret: str = field(default="", repr=False)
    webhook_secret_file: str = ""
    public_url: str = ""
    further: tuple[FurtherScope, ...] = ()
    certificate: Certificate | None = None
    redis: Address = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        addresses = {str(number): url for number, url in enumerate((self.redis_url, *self.health_urls))}
        further = (key for each in self.further for key in (each.api_key, each.management_key))
        own = (
            self.api_key,
            self.management_key,
            *self.tokens.all,
            self.webhook_url,
            *self.webhook_secret.split(),
            *further,
        )
        remember((*own, *secrets_in(addresses)))
        object.__setattr__(self, "redis", parse_address(self.redis_url).for_scope(self.scope))

    def for_each_scope(self) -> tuple[Settings, ...]:
        """Return the settings of each scope of one service, these first."""
        others = (
            replace(self, scope=each.scope, api_key=each.api_key, management_key=each.management_key, further=())
            for each in self.further
        )
        return (replace(self, further=()), *others)

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Return the settings in *environ*.

        An unknown variable that looks like a setting is logged, once per process.

        Raises:
            ConfigurationError: If ``REDIS_URL`` is missing, a value is invalid, or two contradict each other.
        """
        for sentence in unknown(environ):
            _warn_once(sentence)
        remember(secrets_in(environ))
        redis_url = environ.get("REDIS_URL", "").strip()
        if not redis_url:
            raise ConfigurationError("REDIS_URL is not set: write where Redis is, such as redis://redis:6379/0")
        scope = _scope("SCOPE", environ.get(f"{_PREFIX}SCOPE") or DEFAULT_SCOPE)
        read = _Reader(environ)
        policy, thresholds = Policy(), Thresholds()
        further = _further(environ, scope)
        settings = cls(
            redis_url=redis_url,
            scope=scope,
            api_key=environ.get("OPENROUTER_API_KEY", "").strip(),
            base_url=_base_url(environ.get("OPENROUTER_BASE_URL") or DEFAULT_BASE_URL),
            policy=Policy(
                failure_threshold=read.count("FAILURE_THRESHOLD", policy.failure_threshold),
                refusals_wanted=read.count("REFUSALS_WANTED", policy.refusals_wanted),
                confirm_s=read.seconds("CONFIRM_SECONDS", policy.confirm_s),
                first_wait_s=read.seconds("FIRST_WAIT_SECONDS", policy.first_wait_s, at_most=DAY_S),
                longest_wait_s=read.seconds("LONGEST_WAIT_SECONDS", policy.longest_wait_s, at_most=DAY_S),
                reset_timeout_s=read.seconds("RESET_TIMEOUT_SECONDS", policy.reset_timeout_s, at_most=DAY_S),
                max_reset_timeout_s=read.seconds(
                    "MAX_RESET_TIMEOUT_SECONDS", policy.max_reset_timeout_s, at_most=DAY_S
                ),
                recheck_s=read.seconds("RECHECK_SECONDS", policy.recheck_s),
                stable_s=read.seconds("STABLE_SECONDS", policy.stable_s),
                permits=read.count("PERMITS", policy.permits),
                next_trial_s=read.seconds("NEXT_TRIAL_SECONDS", policy.next_trial_s),
                permit_lease_s=read.seconds("PERMIT_LEASE_SECONDS", policy.permit_lease_s, at_most=3600),
                trial_call_s=read.seconds("TRIAL_CALL_SECONDS", policy.trial_call_s),
                trial_wait_s=read.seconds("TRIAL_WAIT_SECONDS", policy.trial_wait_s),
                good_checks=read.count("GOOD_CHECKS", policy.good_checks),
                ramp_s=read.seconds("RAMP_SECONDS", policy.ramp_s),
                cooldown_s=read.seconds("COOLDOWN_SECONDS", policy.cooldown_s),
                max_cooldown_s=read.seconds("MAX_COOLDOWN_SECONDS", policy.max_cooldown_s),
                failure_rate=read.share("FAILURE_RATE", policy.failure_rate),
                slow_rate=read.share("SLOW_RATE", policy.slow_rate),
                slow_s=read.seconds("SLOW_SECONDS", policy.slow_s),
                window_s=read.seconds("WINDOW_SECONDS", policy.window_s, at_most=600),
                window_calls=read.count("WINDOW_CALLS", policy.window_calls),
            ),
            thresholds=Thresholds(
                fresh_s=read.seconds("FRESH_SECONDS", thresholds.fresh_s),
                min_fresh_s=read.seconds("MIN_FRESH_SECONDS", thresholds.min_fresh_s),
                max_fresh_s=read.seconds("MAX_FRESH_SECONDS", thresholds.max_fresh_s),
                stale_s=read.seconds("STALE_SECONDS", thresholds.stale_s),
                check_slot_s=read.seconds("CHECK_SLOT_SECONDS", thresholds.check_slot_s, at_most=3600),
                check_timeout_s=read.seconds("CHECK_TIMEOUT_SECONDS", thresholds.check_timeout_s),
                alert_error_rate=read.share("ALERT_ERROR_RATE", thresholds.alert_error_rate),
                alert_calls=read.count("ALERT_CALLS", thresholds.alert_calls),
                max_streams=read.count("MAX_STREAMS", thresholds.max_streams),
            ),
            redis_timeout_s=read.seconds("REDIS_TIMEOUT_SECONDS", 1.0),
            worker_id=environ.get(f"{_PREFIX}WORKER_ID", ""),
            tokens=tokens_in(environ, {scope, *(each.scope for each in further)}),
            cors_origins=_origins(environ.get(f"{_PREFIX}CORS_ORIGINS", "")),
            management_key=environ.get("OPENROUTER_MANAGEMENT_KEY", "").strip(),
            health_urls=_addresses(f"{_PREFIX}HEALTH_URLS", environ),
            webhook_url=_one_address(f"{_PREFIX}WEBHOOK_URL", environ),
            further=further,
            webhook_format=webhook_format(environ),
            webhook_secret=_webhook_secret(environ),
            webhook_secret_file=environ.get(f"{_PREFIX}WEBHOOK_SECRET_FILE", "").strip(),
            public_url=_one_address(f"{_PREFIX}PUBLIC_URL", environ).rstrip("/"),
            certificate=Certificate.from_env(environ),
        )
        read.refuse_contradictions()
        return settings


@dataclass(frozen=True, slots=True)
class _Reader:
    environ: Mapping[str, str]
    found: dict[str, float] = field(default_factory=dict)
    """The values read, by name."""

    def count(self, name: str, default: int) -> int:
        return self._number(name, default, int, f"a whole number above 0, at most {MOST}, such as 5", MOST)

    def seconds(self, name: str, default: float, at_most: float = LONGEST_S) -> float:
        example = ", such as 120" if at_most == LONGEST_S else ""
        return self._number(name, default, float, f"seconds above 0, at most {at_most:.0f}{example}", at_most)

    def share(self, name: str, default: float) -> float:
        return self._number(name, default, float, "a share above 0, at most 1, such as 0.5", at_most=1.0)

    def refuse_contradictions(self) -> None:
        """The values read.

        Raises:
            ConfigurationError: If a setting is above another one that limits it.
        """
        for low, high, only_if_set in _ORDER:
            lower, upper = self.found[low], self.found[high]
            # 0 means unset: it follows another setting.
            if lower <= upper or not upper or (only_if_set and not self._text(low)):
                continue
            raise ConfigurationError(
                f"{_PREFIX}{low} is {self._said(low)}, above {_PREFIX}{high}, which is {self._said(high)}: "
                "lower the first or raise the second"
            )

    def _number(self, name: str, default: T, kind: Callable[[str], T], wanted: str, at_most: float) -> T:
        text = self._text(name)
        try:
            number = kind(text) if text else default
        except ValueError:
            number = kind("0")
        # Python also accepts 1_000 and the digits of all scripts, which are probably mistakes here.
        is_plain = text.isascii() and "_" not in text
        if text and not (is_plain and 0 < number <= at_most):
            raise ConfigurationError(f"{_PREFIX}{name} is {text[:_SHOWN]!r}: write {wanted}")
        self.found[name] = number
        return number

    def _text(self, name: str) -> str:
        return self.environ.get(_PREFIX + name, "").strip()

    def _said(self, name: str) -> str:
        return f"{self.found[name]:.10g}" + ("" if self._text(name) else " by default")


@cache
def _warn_once(sentence: str) -> None:
    # A probe, which runs every few seconds, imports this module and does not need logging.
    import logging

    logging.getLogger(__name__).warning("%s", sentence)


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(filter(None, (each.strip() for each in text.split(","))))
    for origin in origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ConfigurationError(
                f"{_PREFIX}CORS_ORIGINS has {origin!r}: write sites such as https://grafana.example, comma separated"
            )
    return origins


def _addresses(name: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Parse addresses separated by commas; errors do not quote them, because they may hold secrets."""
    found = tuple(text for text in map(str.strip, environ.get(name, "").split(",")) if text)
    for number, text in enumerate(found, 1):
        if not _ADDRESS.fullmatch(text):
            raise ConfigurationError(
                f"{name}: entry {number} is not an address: write https://host/path, several separated by commas"
            )
    return found


def api_key_variable(scope: str, *, is_further: bool) -> str:
    """Return the variable of that scope's API key."""
    return f"OPENROUTER_API_KEY{_suffix(scope)}" if is_further else "OPENROUTER_API_KEY"


def _scope(variable: str, text: str) -> str:
    try:
        return Keys(text).scope
    except ConfigurationError as error:
        raise ConfigurationError(f"{_PREFIX}{variable}: {error}") from None


def _suffix(scope: str) -> str:
    return "_" + scope.upper().replace("-", "_")


def _further(environ: Mapping[str, str], first: str) -> tuple[FurtherScope, ...]:
    names = [text for text in map(str.strip, environ.get(f"{_PREFIX}FURTHER_SCOPES", "").split(",")) if text]
    if len({first, *names}) != 1 + len(names):
        raise ConfigurationError(
            f"{_PREFIX}FURTHER_SCOPES names a scope twice, or {_PREFIX}SCOPE, which is {first!r}"
        )
    for name in names:
        _scope("FURTHER_SCOPES", name)
    # Without further scopes, such variables may belong to something else.
    for sentence in unused_keys(environ, [_suffix(name)[1:] for name in names]) if names else ():
        _warn_once(sentence)
    return tuple(
        FurtherScope(
            name,
            environ.get(api_key_variable(name, is_further=True), "").strip(),
            environ.get(f"OPENROUTER_MANAGEMENT_KEY{_suffix(name)}", "").strip(),
        )
        for name in names
    )


def _one_address(name: str, environ: Mapping[str, str]) -> str:
    found = _addresses(name, environ)
    if len(found) > 1:
        raise ConfigurationError(f"{name}: write one address, without a comma")
    return found[0] if found else ""


def _webhook_secret(environ: Mapping[str, str]) -> str:
    text = environ.get(f"{_PREFIX}WEBHOOK_SECRET", "").strip()
    secret_keys(text)
    return text


def _base_url(text: str) -> str:
    _, _, rest = text.partition("://")
    if "@" in re.split(r"[/?#\\]", rest, maxsplit=1)[0]:
        # Not repeated: it holds a password.
        raise ConfigurationError(
            "OPENROUTER_BASE_URL has a user or a password in it: remove the part before the @, and give the key "
            "as OPENROUTER_API_KEY"
        )
    if not text.startswith(("http://", "https://")):
        raise ConfigurationError(
            f"OPENROUTER_BASE_URL is {redact(text)!r}: write an address such as {DEFAULT_BASE_URL}"
        )
    return text.rstrip("/")
