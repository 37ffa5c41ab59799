"""kopf's settings: bounded everywhere, and under our own names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import kopf

from openrouter_operator.kubernetes.paths import finalizer_of
from openrouter_operator.resource.spec import DEFAULT_CLASS
from openrouter_operator.workloads.workload import GROUP

__all__ = ["configure"]


class _NoDiffs(kopf.DiffBaseStorage):
    """Stores nothing of the objects: no handler asks for changes, and copying each would cost more than all else."""

    def build(self, *, body: kopf.Body, extra_fields: Iterable[Any] | None = None) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        return


def configure(resource_class: str = DEFAULT_CLASS) -> kopf.OperatorSettings:
    """Settings for kopf: time limits everywhere, and our own names."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True  # a Lease decides who acts; peering is no mutex
    settings.scanning.disabled = True  # needs rights on CRDs and namespaces that should not be required
    settings.persistence.finalizer = finalizer_of(resource_class)
    settings.persistence.diffbase_storage = _NoDiffs()
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    settings.posting.reporting_component = "openrouter-guard"
    settings.posting.event_name_prefix = "openrouter-guard-"
    settings.watching.server_timeout = 240
    settings.watching.client_timeout = 300
    settings.watching.connect_timeout = 10
    settings.watching.inactivity_timeout = 70  # a watch may be dead though its connection is not
    settings.networking.request_timeout = 10
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = (
        0.5,
        1,
        2,
        4,
    )  # a watch that stays broken ends this process, which is then restarted
    settings.background.instant_exit_timeout = 5
    settings.background.cancellation_polling = 2
    settings.process.ultimate_exiting_timeout = 25
    return settings
