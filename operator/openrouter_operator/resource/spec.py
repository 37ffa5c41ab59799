"""What the user asks for, as the custom resource's schema lets it in.

The API server has validated it and filled in the defaults; what comes from elsewhere is validated here again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from openrouter_guard.errors import ConfigurationError, OpenRouterGuardError
from openrouter_guard.keys import DEFAULT_SCOPE, Keys
from openrouter_guard.rules.codec import unix_s
from openrouter_guard.rules.parsing import line_of
from openrouter_operator.workloads.kinds import BY_NAME, Kind
from openrouter_operator.workloads.workload import Workload

__all__ = [
    "DEFAULT_CLASS",
    "Action",
    "DeletionPolicy",
    "Flapping",
    "InvalidSpec",
    "Mode",
    "NotAllowed",
    "OnManualChange",
    "Options",
    "OverrideSpec",
    "PauseOn",
    "Redis",
    "Resume",
    "SecretRef",
    "Spec",
    "Strategy",
    "Target",
    "Which",
    "class_of",
    "is_left_paused",
    "parse",
]


DEFAULT_CLASS = "default"
_PLAIN = frozenset({"v1", "apps/v1", "batch/v1"})


class InvalidSpec(OpenRouterGuardError):
    """The spec cannot be carried out; the message names the field."""


class NotAllowed(InvalidSpec):
    """The operator's configuration does not let this namespace do it."""


class Mode(StrEnum):
    """What may be done to the targets."""

    OBSERVE = "Observe"
    HOLD = "Hold"
    SCALE_DOWN = "ScaleDown"


class Strategy(StrEnum):
    """How paused workloads come back."""

    IMMEDIATE = "Immediate"
    STAGED = "Staged"


class PauseOn(StrEnum):
    """What is reason enough to pause."""

    BREAKER_OPEN = "BreakerOpen"
    OUTAGE = "Outage"
    CREDITS_EXHAUSTED = "CreditsExhausted"
    KEY_INVALID = "KeyInvalid"
    RATE_LIMITED = "RateLimited"


class OnManualChange(StrEnum):
    """What becomes of a paused workload that somebody changes."""

    RESPECT = "Respect"
    ENFORCE = "Enforce"


class DeletionPolicy(StrEnum):
    """What becomes of paused workloads when the resource is deleted."""

    RESTORE = "Restore"
    ORPHAN = "Orphan"


class Action(StrEnum):
    """What an override does to the breaker."""

    NONE = "None"
    FORCE_OPEN = "ForceOpen"
    FORCE_CLOSED = "ForceClosed"
    DISABLED = "Disabled"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore")


class Requirement(_Model):
    """One condition on a label."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()

    def holds(self, labels: Mapping[str, str]) -> bool:
        match self.operator:
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values


class Selector(_Model):
    """Labels of workloads, as Kubernetes selects by them."""

    match_labels: Mapping[str, str] = Field(default_factory=dict)
    match_expressions: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        # An empty selector would match everything: never what somebody meant.
        if not self.match_labels and not self.match_expressions:
            return False
        equal = all(labels.get(key) == value for key, value in self.match_labels.items())
        return equal and all(requirement.holds(labels) for requirement in self.match_expressions)


class Which(_Model):
    """Workloads of one kind: one by name, many by labels, or those whose owners have said so."""

    kind: str
    api_version: str = ""
    name: str | None = None
    selector: Selector | None = None
    annotated: bool = False

    def matches(self, workload: Workload) -> bool:
        if workload.kind.name != self.kind or not self._is_of_group(workload.kind.group):
            return False
        if self.name is not None:
            return workload.name == self.name
        if self.annotated:
            return self._is_meant(workload)
        return self.selector is not None and self.selector.matches(workload.labels)

    def _is_meant(self, workload: Workload) -> bool:
        return workload.opt == "true"

    def is_of(self, kind: Kind) -> bool:
        return kind.name == self.kind and self._is_of_group(kind.group)

    def may_be_of(self, name: str) -> bool:
        """Whether a kind of this name in the settings, which is not there, may be the one that is meant."""
        if name in BY_NAME:
            return self.is_of(BY_NAME[name])
        plural, _, group = name.partition(".")
        # Only its CRD could tell the kind of a plural.
        return self._is_of_group(group) and plural.startswith(self.kind.lower()[:3])

    @property
    def is_plain(self) -> bool:
        """Whether its apiVersion is one of Kubernetes' own groups, none of which comes with a CRD."""
        return self.api_version in _PLAIN

    @property
    def words(self) -> str:
        """What it names, for a message: the kind, and the name or the labels."""
        if self.name is not None:
            return f"{self.kind} {self.name!r}"
        return f"{self.kind} that the selector matches"

    def __str__(self) -> str:
        return f"{self.api_version} {self.kind}".strip()

    def _is_of_group(self, group: str) -> bool:
        if not self.api_version:
            return self.kind in BY_NAME and BY_NAME[self.kind].group == group
        return (self.api_version.rpartition("/")[0]) == group


@dataclass(frozen=True, slots=True)
class Options:
    """What a spec says about one workload.

    Attributes:
        holds: Whether pods that run are left to run.
        priority: Those with a smaller one are paused first and come back last.
        paused_replicas: Pods that run on while it is paused.
        allow_volume_deletion: Whether it may be paused though that deletes its volumes.
        pauses_rollouts: Whether it may be paused in the middle of a rollout, which is over then.
        takes_cron_runs: Whether a Job that a CronJob has started is suspended too.
        enforces: Whether a pause is put back when somebody undoes it.
    """

    holds: bool = False
    priority: int = 0
    paused_replicas: int = 0
    allow_volume_deletion: bool = False
    pauses_rollouts: bool = False
    takes_cron_runs: bool = False
    enforces: bool = False


class Target(Which):
    """What is to be paused, and how."""

    priority: int = 0
    paused_replicas: int = Field(default=0, ge=0)
    allow_volume_deletion: bool = False
    cron_job_runs: bool = False
    pause_during_rollout: bool = False

    def _is_meant(self, workload: Workload) -> bool:
        # A word that nobody can read is told, and the workload left alone: a typo is not to pass for a no.
        return workload.opt == "true" or workload.has_unclear_opt


class Flapping(_Model):
    """When a breaker that has closed is not trusted: it has closed by itself so often within so many seconds."""

    closings: int = Field(default=3, ge=2, le=5)
    within_seconds: float = Field(default=3600, gt=0)


class Resume(_Model):
    """How paused workloads come back; see the fields of the custom resource."""

    strategy: Strategy = Strategy.STAGED
    canary: bool = True
    step_percent: int = Field(default=25, ge=1, le=100)
    interval_seconds: float = Field(default=15, gt=0)
    canary_timeout_seconds: float = Field(default=300, gt=0)
    flapping: Flapping = Flapping()


class OverrideSpec(_Model):
    """What a person decides over the breaker's head, for the whole scope; ``until`` is a time as in RFC 3339."""

    action: Action = Action.NONE
    reason: str = ""
    until: str = ""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.action is not Action.NONE and not (self.reason and unix_s(self.until)):
            raise ValueError("an override needs a reason, and a time in until, such as 2026-01-31T18:00:00Z")
        return self


class SecretRef(_Model):
    """A key of a Secret in the namespace of the resource."""

    name: str
    key: str = "url"


class Redis(_Model):
    """Where the state of the scope is, if not in the operator's own Redis."""

    url_secret_ref: SecretRef | None = None


class Spec(_Model):
    """The spec of an ``OpenRouterStatus``; times in seconds."""

    scope: str = DEFAULT_SCOPE
    redis: Redis | None = None
    resource_class: str = Field(default=DEFAULT_CLASS, alias="class")
    mode: Mode = Mode.SCALE_DOWN
    suspend: bool = False
    dry_run: bool = False
    targets: tuple[Target, ...] = ()
    exclude: tuple[Which, ...] = ()
    pause_on: frozenset[PauseOn] = frozenset({PauseOn.BREAKER_OPEN})
    pause_after_seconds: float = Field(default=10, ge=0)
    min_paused_seconds: float = Field(default=60, ge=0)
    max_pause_seconds: float | None = Field(default=None, gt=0)
    max_unknown_seconds: float = Field(default=900, gt=0)
    resume: Resume = Resume()
    on_manual_change: OnManualChange = OnManualChange.RESPECT
    deletion_policy: DeletionPolicy = DeletionPolicy.RESTORE
    override: OverrideSpec = OverrideSpec()

    def matches(self, workload: Workload) -> bool:
        return self.options(workload) is not None

    def options(self, workload: Workload) -> Options | None:
        """What is said about the workload, by the first target that names it; None if it is not to be paused."""
        if workload.opt == "false" or any(each.matches(workload) for each in self.exclude):
            return None
        target = next((each for each in self.targets if each.matches(workload)), None)
        if target is None:
            return None
        return Options(
            holds=self.mode is Mode.HOLD,
            priority=target.priority,
            paused_replicas=target.paused_replicas,
            allow_volume_deletion=target.allow_volume_deletion,
            takes_cron_runs=target.cron_job_runs,
            pauses_rollouts=target.pause_during_rollout,
            enforces=self.on_manual_change is OnManualChange.ENFORCE,
        )

    @property
    def acts(self) -> bool:
        """Whether it would change workloads by itself."""
        return self.mode is not Mode.OBSERVE and not self.dry_run and not self.suspend


def class_of(resource: Mapping[str, Any]) -> str:
    """Which operator is to look after a resource, whatever else is in its spec."""
    spec = resource.get("spec")
    found = spec.get("class", DEFAULT_CLASS) if isinstance(spec, Mapping) else DEFAULT_CLASS
    return found if isinstance(found, str) else DEFAULT_CLASS


def is_left_paused(resource: Mapping[str, Any]) -> bool:
    """Whether what the resource has paused is to stay so when it is deleted."""
    spec = resource.get("spec")
    return isinstance(spec, Mapping) and spec.get("deletionPolicy") == DeletionPolicy.ORPHAN


def parse(spec: object) -> Spec:
    """The spec of a resource; None is an empty one.

    Raises:
        InvalidSpec: If it cannot be used, which the API server should not have let in.
    """
    if spec is None:
        spec = {}
    try:
        parsed = Spec.model_validate(spec)
        Keys(parsed.scope)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(("spec", *(str(part) for part in first["loc"])))
        raise InvalidSpec(line_of(f"{where}: {first['msg']}")) from error
    except ConfigurationError as error:
        raise InvalidSpec(f"spec.scope: {error}") from error
    return parsed
