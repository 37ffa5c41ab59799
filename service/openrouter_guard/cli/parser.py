"""All commands and their options. The commands themselves are imported when they run."""

from __future__ import annotations

import argparse
import sys
from pathlib import PurePath

from .cluster_options import add_cluster
from .doctor_options import add_doctor
from .drill_options import add_drill
from .fleet_options import add_fleet, run_overview
from .probe_options import PROBE, add_probe_options
from .processes import add_processes

__all__ = ["parser"]


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_name(),
        description="One shared circuit breaker for every worker that calls OpenRouter.",
        epilog="Settings come from the environment: REDIS_URL, OPENROUTER_API_KEY, OPENROUTER_GUARD_*. "
        "docs/configuration.md lists all of them with their defaults, and docs/command-line.md shows examples.",
    )
    parser.add_argument("--version", action="store_true", help="show the version and end")
    parser.set_defaults(run=run_overview, parser=parser)
    commands = parser.add_subparsers(metavar="COMMAND")
    add_fleet(commands)
    add_cluster(commands)
    add_drill(commands)
    add_doctor(commands)
    add_processes(commands)
    probe = commands.add_parser("probe", help="whether calls may go, for exec probes", description=PROBE)
    add_probe_options(probe)
    return parser


def _name() -> str:
    """Return the name by which a person has called us: kubectl starts a plugin by its own."""
    return "kubectl openrouter" if PurePath(sys.argv[0]).name == "kubectl-openrouter" else "openrouter-guard"
