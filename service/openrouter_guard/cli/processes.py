"""The commands that run a part of the product, and ``rescue``."""

from __future__ import annotations

import argparse
import os

from .arguments import Commands, name, namespaced, port

__all__ = ["add_processes"]


def add_processes(commands: Commands) -> None:
    up = commands.add_parser("up", help="run everything on embedded defaults, to try it out")
    up.add_argument("--host", default="127.0.0.1")
    up.add_argument("--port", type=port, default=8080, help="of the health service; another one when it is taken")
    up.set_defaults(run=_up)

    serve = commands.add_parser("serve", help="the health service")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=port, default=8080)
    serve.set_defaults(run=_serve)

    operate = commands.add_parser("operate", help="the Kubernetes operator")
    operate.set_defaults(run=_operate)

    rescue = commands.add_parser(
        "rescue",
        help="restore everything that an operator left paused",
        description="Restore every paused workload from its own annotation, with the rights of your kubeconfig; "
        "neither an operator nor Redis is needed. Workloads changed since stay as they are. Stop the operator first: "
        "a running one may pause again. Exit status: 0 nothing is left paused; 1 something is, or a "
        "namespace or kind that you name does not exist.",
    )
    where = rescue.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "-n", "--namespace", action="append", type=name, metavar="NAME", help="may be given more than once"
    )
    where.add_argument("-A", "--all-namespaces", action="store_true")
    rescue.add_argument(
        "--kind", action="append", metavar="NAME", help="as in operator.kinds of the chart; default all"
    )
    rescue.add_argument(
        "--class",
        dest="resource_class",
        default="",
        metavar="NAME",
        help="only pauses by resources of this spec.class, whose operator is gone for good; releases them",
    )
    rescue.add_argument(
        "--ignore-not-found", action="store_true", help="skip a named kind or namespace that does not exist"
    )
    lease = rescue.add_mutually_exclusive_group()
    lease.add_argument(
        "--take-lease",
        type=namespaced,
        metavar="NAMESPACE/NAME",
        help="first take this Lease from the operator, so that it stops acting; give it back if something fails",
    )
    lease.add_argument(
        "--delete-lease", type=namespaced, metavar="NAMESPACE/NAME", help="the same, and delete the Lease at the end"
    )
    rescue.add_argument("--dry-run", action="store_true", help="only print the changes")
    rescue.set_defaults(run=_rescue)

    simulate = commands.add_parser("simulate", help="a simulated OpenRouter that fails on demand")
    simulate.add_argument("--host", default="127.0.0.1")
    simulate.add_argument("--port", type=port, default=8787)
    simulate.set_defaults(run=_simulate)


def _up(arguments: argparse.Namespace) -> int:
    from . import up

    return up.run(os.environ, host=arguments.host, port=arguments.port)


def _serve(arguments: argparse.Namespace) -> int:
    from openrouter_guard.settings import Settings

    from .logs import configure

    configure(os.environ)
    settings = Settings.from_env(os.environ)
    # The framework takes a second to load: report a wrong setting before.
    from openrouter_guard.api.server import serve

    return serve(settings, arguments.host, arguments.port)


def _operate(_arguments: argparse.Namespace) -> None:
    from openrouter_operator import main as operator
    from openrouter_operator.settings import OperatorSettings

    from .logs import configure

    configure(os.environ)
    operator.run(OperatorSettings.from_env(os.environ))


def _rescue(arguments: argparse.Namespace) -> int:
    from .rescue import Ending, LeaseToTake, Only, run

    only = Only(arguments.kind or (), arguments.resource_class, arguments.ignore_not_found)
    lease = arguments.take_lease or arguments.delete_lease
    ending = Ending.DELETE if arguments.delete_lease else Ending.KEEP
    return run(
        arguments.namespace,
        dry_run=arguments.dry_run,
        only=only,
        lease=LeaseToTake(lease[0], lease[1], ending) if lease else None,
    )


def _simulate(arguments: argparse.Namespace) -> None:
    from openrouter_guard.testing import run

    run(arguments.host, arguments.port)
