"""``make demo``: exits with 0 only if the Deployments went to 0 and came back."""

from __future__ import annotations

import sys

import httpx

from tests.controlplane import ControlPlaneFailed, ControlPlaneUnavailable, KubectlFailed

from .errors import DemoFailed
from .stage import Stage, running
from .story import tell
from .telling import say, timed


def main() -> int:
    say("OpenRouter Guard: an outage from its beginning to its end\n")
    timed("A Kubernetes control plane: API server, etcd, controller manager")
    try:
        with running() as stage:
            return _tell(stage)
    except (ControlPlaneUnavailable, ControlPlaneFailed) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _tell(stage: Stage) -> int:
    try:
        tell(stage)
    except (DemoFailed, KubectlFailed, httpx.HTTPError) as error:
        print(f"\nThe demo failed: {error}\n\n{stage.log_tails()}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
