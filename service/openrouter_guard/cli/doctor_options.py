"""``doctor``, ``report`` and ``completion``: their options."""

from __future__ import annotations

import argparse

from .arguments import Commands, name
from .fleet_options import add_output

__all__ = ["add_doctor"]


def add_doctor(commands: Commands) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="check Redis, the workers, the key, the cluster and the service, and say what to do",
        description="Checks all that this environment leads to, and changes nothing. It sends one request for each "
        "API key to OpenRouter. Exit status: 0 all is well; 3 there are warnings; 1 a check failed.",
    )
    _add_subjects(doctor)
    add_output(doctor)
    doctor.set_defaults(run=_run_doctor)

    report = commands.add_parser(
        "report",
        help="all that helps with a bug report, as one JSON document without secrets",
        description="Collects version, settings, status, history, workers, models and the checks of doctor. Keys, "
        "tokens and passwords are left out; names of hosts and workloads are not.",
    )
    _add_subjects(report)
    report.add_argument("-f", "--file", metavar="FILE", help="write it there; default stdout")
    report.set_defaults(run=_run_report)

    completion = commands.add_parser("completion", help="a script that completes commands and options in your shell")
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))
    completion.set_defaults(run=_run_completion)


def _add_subjects(command: argparse.ArgumentParser) -> None:
    command.add_argument("--scope", action="append", type=name, metavar="NAME", help="may be given more than once")
    command.add_argument(
        "--part",
        choices=("worker", "service", "operator"),
        default="service",
        help="whose rights the user in REDIS_URL needs (default service)",
    )
    command.add_argument("--url", metavar="URL", help="of a health service, such as http://127.0.0.1:8080")


def _run_doctor(arguments: argparse.Namespace) -> int:
    from .doctor.run import run_doctor

    return run_doctor(arguments)


def _run_report(arguments: argparse.Namespace) -> int:
    from .report import run_report

    return run_report(arguments)


def _run_completion(arguments: argparse.Namespace) -> int:
    from .completion import script

    print(script(arguments.shell, arguments.parser), end="")
    return 0
