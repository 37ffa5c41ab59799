"""The errors of the control plane.

ControlPlaneUnavailable   a program is missing: the user can install it
ControlPlaneFailed        a process did not start: its log says why
└─ PortTaken              somebody was faster: try another port
KubectlFailed             the API server, or kubectl, said no
"""

from __future__ import annotations

__all__ = ["ControlPlaneFailed", "ControlPlaneUnavailable", "KubectlFailed", "PortTaken"]


class ControlPlaneUnavailable(Exception):
    """A program is neither there nor can it be built; the message says how to get it."""


class ControlPlaneFailed(Exception):
    """A process did not start; the message ends with its log."""


class PortTaken(ControlPlaneFailed):
    """The port was free when it was chosen, and no longer when the API server wanted it."""


class KubectlFailed(Exception):
    """What kubectl was asked, and what it wrote to stderr."""
