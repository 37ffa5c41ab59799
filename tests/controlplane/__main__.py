"""``make cluster``: a control plane in the foreground.

With ``build``, only find or build every program; with ``pin v1.30.14``, have another Kubernetes built from then on.
"""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys

from . import ControlPlane, ControlPlaneFailed, ControlPlaneUnavailable, find_or_build, helm, helm_3, kubectl
from .pin import pin


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.controlplane", description=__doc__)
    parser.add_argument("command", nargs="?", choices=("up", "build", "pin"), default="up")
    parser.add_argument("version", nargs="?", help="of Kubernetes, for pin")
    arguments = parser.parse_args()
    command = arguments.command
    if (command == "pin") != bool(arguments.version):
        parser.error("pin needs a version, and nothing else does")
    try:
        if command == "pin":
            pin(arguments.version)
            return 0
        return _build() if command == "build" else _up()
    except (ControlPlaneUnavailable, ControlPlaneFailed) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0 if command == "up" else 130


def _build() -> int:
    programs = {**dataclasses.asdict(find_or_build()), "helm": helm(), "helm 3": helm_3(), "kubectl": kubectl()}
    for name, path in programs.items():
        print(f"{name:<20} {path}")
    return 0


def _up() -> int:
    with ControlPlane() as control_plane:
        print(f"A Kubernetes control plane answers at {control_plane.url}. In another terminal:\n")
        print(f"  export KUBECONFIG={control_plane.kubeconfig}\n")
        print("Ctrl-C stops it and removes all of it.", flush=True)
        signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
