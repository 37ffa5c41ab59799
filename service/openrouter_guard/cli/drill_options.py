"""``drill``: its options."""

from __future__ import annotations

import argparse

from .arguments import Commands, duration, name, object_name
from .fleet_options import add_output

__all__ = ["add_drill"]

_FOR_S, _GOAL_PAUSE_S, _GOAL_RESUME_S = 60.0, 15.0, 60.0


def add_drill(commands: Commands) -> None:
    drill = commands.add_parser(
        "drill",
        help="rehearse an outage: force one scope or resource open for a minute, and time the workloads",
        description="Refuses the calls of a scope for a limited time, watches the workloads go and come back, and "
        "ends the override also on Ctrl-C, SIGTERM and errors. With a name or a namespace it sets the override of an "
        "OpenRouterStatus, else that of a scope in Redis. Exit status: 0 all goals met; 3 one missed; 1 it failed.",
    )
    drill.add_argument("name", nargs="?", type=object_name, metavar="NAME", help="an OpenRouterStatus")
    drill.add_argument("-n", "--namespace", type=object_name, metavar="NAME", help="the namespace of the resource")
    drill.add_argument("--scope", type=name, metavar="NAME", help="default: OPENROUTER_GUARD_SCOPE")
    drill.add_argument("--by", type=name, metavar="NAME", help="your name in the history; default: user@host")
    drill.add_argument("--yes", action="store_true", help="calls may be refused: without it, nothing is changed")
    for option, dest, default_s, what in (
        ("--for", "for_s", _FOR_S, "how long calls are refused"),
        ("--goal-pause", "goal_pause_s", _GOAL_PAUSE_S, "when the last workload should be paused"),
        ("--goal-resume", "goal_resume_s", _GOAL_RESUME_S, "when the last workload should be back"),
    ):
        help_ = f"{what} (default {default_s:g}s)"
        drill.add_argument(option, dest=dest, type=duration, default=default_s, metavar="TIME", help=help_)
    add_output(drill)
    drill.set_defaults(run=_run_drill)


def _run_drill(arguments: argparse.Namespace) -> int:
    from .drill.run import run_drill

    return run_drill(arguments)
