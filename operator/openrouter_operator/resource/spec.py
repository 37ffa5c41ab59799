"""The spec of the custom resource, as its schema accepts it.

The API server has validated it and filled in the defaults; other specs are validated here again.
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
from openrouter_guard.rules.codec import parse_iso
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
    """The operator's configuration does not allow this to the namespace."""


class Mode(StrEnum):
    """The modes."""

    OBSERVE = "Observe"
    HOLD = "Hold"
    SCALE_DOWN = "ScaleDown"


class Strategy(StrEnum):
    """How paused workloads come back."""

    IMMEDIATE = "Immediate"
    STAGED = "Staged"


class PauseOn(StrEnum):
    """The reasons to pause."""

    BREAKER_OPEN = "BreakerOpen"
    OUTAGE = "Outage"
    CREDITS_EXHAUSTED = "CreditsExhausted"
    KEY_INVALID = "KeyInvalid"
    RATE_LIMITED = "RateLimited"


class OnManualChange(StrEnum):
    """The reactions to a manual change of a paused workload."""

    RESPECT = "Respect"
    ENFORCE = "Enforce"


class DeletionPolicy(StrEnum):
    """The handling of paused workloads when the resource is deleted."""

    RESTORE = "Restore"
    ORPHAN = "Orphan"


class Action(StrEnum):
    """The effects of an override on the breaker."""

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
    """A label selector, as in Kubernetes."""

    match_labels: Mapping[str, str] = Field(default_factory=dict)
    match_expressions: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        # An empty selector would match everything, which is never intended.
        if not self.match_labels and not self.match_expressions:
            return False
        equal = all(labels.get(key) == value for key, value in self.match_labels.items())
        return equal and all(requirement.holds(labels) for requirement in self.match_expressions)


class Which(_Model):
    """Workloads of one kind: one by name, or many by labels or by annotation."""

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
        """Return whether a missing kind of this name in the settings may be the intended one."""
        if name in BY_NAME:
            return self.is_of(BY_NAME[name])
        plural, _, group = name.partition(".")
        # Only its CRD has the kind of a plural.
        return self._is_of_group(group) and plural.startswith(self.kind.lower()[:3])

    @property
    def is_plain(self) -> bool:
        """Return whether its apiVersion is one of Kubernetes' own groups, none of which comes with a CRD."""
        return self.api_version in _PLAIN

    @property
    def words(self) -> str:
        """Return a description for messages: the kind, and the name or the labels."""
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
    """The options for one workload in a spec.

    Attributes:
        holds: Whether running pods are left alone.
        priority: Workloads with a smaller number are paused first and come back last.
        paused_replicas: Pods that keep running while it is paused.
        allow_volume_deletion: Whether it may be paused although that deletes its volumes.
        pauses_rollouts: Whether it may be paused in the middle of a rollout, which is over then.
        takes_cron_runs: Whether a Job started by a CronJob is suspended too.
        enforces: Whether an undone pause is put back.
    """

    holds: bool = False
    priority: int = 0
    paused_replicas: int = 0
    allow_volume_deletion: bool = False
    pauses_rollouts: bool = False
    takes_cron_runs: bool = False
    enforces: bool = False


class Target(Which):
    """The workloads to pause, and how."""

    priority: int = 0
    paused_replicas: int = Field(default=0, ge=0)
    allow_volume_deletion: bool = False
    cron_job_runs: bool = False
    pause_during_rollout: bool = False

    def _is_meant(self, workload: Workload) -> bool:
        # An unreadable setting is reported, and the workload left alone, so that a typo does not count as a no.
        return workload.opt == "true" or workload.has_unclear_opt


class Flapping(_Model):
    """When to distrust a closed breaker: it has closed by itself this often within this many seconds."""

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
    """An override for the whole scope; ``until`` is a time as in RFC 3339."""

    action: Action = Action.NONE
    reason: str = ""
    until: str = ""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.action is not Action.NONE and not (self.reason and parse_iso(self.until)):
            raise ValueError("an override needs a reason, and a time in until, such as 2026-01-31T18:00:00Z")
        return self


class SecretRef(_Model):
    """A key of a Secret in the namespace of the resource."""

    name: str
    key: str = "url"


class Redis(_Model):
    """The Redis of the scope, if not the operator's own."""

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
        """Return the options for the workload, from the first matching target; None if it is not to be paused."""
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
        """Return whether it would change workloads by itself."""
        return self.mode is not Mode.OBSERVE and not self.dry_run and not self.suspend


def class_of(resource: Mapping[str, Any]) -> str:
    """Return the class of a resource, whatever else is in its spec."""
    spec = resource.get("spec")
    found = spec.get("class", DEFAULT_CLASS) if isinstance(spec, Mapping) else DEFAULT_CLASS
    return found if isinstance(found, str) else DEFAULT_CLASS


def is_left_paused(resource: Mapping[str, Any]) -> bool:
    """Return whether paused workloads stay paused when the resource is deleted."""
    spec = resource.get("spec")
    return isinstance(spec, Mapping) and spec.get("deletionPolicy") == DeletionPolicy.ORPHAN


def parse(spec: object) -> Spec:
    """Parse the spec of a resource; None is an empty one.

    Raises:
        InvalidSpec: If it is invalid, which the API server should have refused.
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
