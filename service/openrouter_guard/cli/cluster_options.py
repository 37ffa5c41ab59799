"""The commands that need a kubeconfig: their options."""

from __future__ import annotations

import argparse

from .arguments import Commands, object_name, workload
from .fleet_options import add_output, add_watch

__all__ = ["add_cluster"]


def add_cluster(commands: Commands) -> None:
    why = commands.add_parser("why", help="why a workload is at zero, or is not, and when it comes back")
    why.add_argument("workload", type=workload, metavar="KIND/NAME", help="such as deploy/chat, sts/db, job/night")
    _add_namespace(why)
    add_watch(why)
    add_output(why)
    why.set_defaults(run=_run_why)

    plan = commands.add_parser(
        "plan",
        help="what a resource would pause if the breaker opened now; changes nothing",
        description="Applies the operator's own rules to the present workloads, with the rights of your kubeconfig.",
    )
    which = plan.add_mutually_exclusive_group()
    _add_name(which)
    which.add_argument("-f", "--file", metavar="FILE", help="a manifest instead, or - for stdin")
    _add_namespace(plan)
    add_output(plan)
    plan.set_defaults(run=_run_plan)

    suspend = commands.add_parser(
        "suspend",
        help="let a resource leave all workloads as they are",
        description="Sets spec.suspend: the operator then neither pauses nor resumes. It refuses while the resource "
        "has paused workloads, which would stay paused, unless you give --keep-paused.",
    )
    suspend.add_argument("--keep-paused", action="store_true", help="also if paused workloads then stay paused")
    _add_one(suspend)
    suspend.set_defaults(run=_run_suspend)

    resume = commands.add_parser(
        "resume", help="let a suspended resource act again", description="Ends spec.suspend of a resource."
    )
    _add_one(resume)
    resume.set_defaults(run=_run_resume)


def _add_one(command: argparse.ArgumentParser) -> None:
    _add_name(command)
    _add_namespace(command)
    add_output(command)


def _add_name(command: argparse._ActionsContainer) -> None:
    command.add_argument(
        "name", nargs="?", default="default", type=object_name, metavar="NAME", help="an OpenRouterStatus (default)"
    )


def _add_namespace(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "-n",
        "--namespace",
        type=object_name,
        metavar="NAME",
        help="default: the namespace of your kubeconfig's context",
    )


def _run_why(arguments: argparse.Namespace) -> int:
    from .cluster.run import run_why

    return run_why(arguments)


def _run_plan(arguments: argparse.Namespace) -> int:
    from .cluster.run import run_plan

    return run_plan(arguments)


def _run_suspend(arguments: argparse.Namespace) -> int:
    from .cluster.run import run_suspend

    return run_suspend(arguments)


def _run_resume(arguments: argparse.Namespace) -> int:
    from .cluster.run import run_resume

    return run_resume(arguments)
