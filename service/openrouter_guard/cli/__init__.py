"""The command line. Each command imports only its own parts: a probe must not pay for the service."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from functools import partial

from openrouter_guard.errors import OpenRouterGuardError

__all__ = ["main"]

EXIT_ERROR = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status.

    An error that the user can fix is one line on stderr, not a traceback.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = _probe_arguments(words[1:]) if words[:1] == ["probe"] else _parser().parse_args(words)
    try:
        return int(arguments.run(arguments) or 0)
    except OpenRouterGuardError as error:
        print(f"openrouter-guard: {error}", file=sys.stderr)
        return EXIT_ERROR
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        if missing in {"openrouter_guard", "openrouter_operator"}:
            raise
        print(f"openrouter-guard: {missing} is not installed: {_EXTRAS}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        return 130


_EXTRAS = "in a checkout, pip install '.[all]', or the extra that the command needs ('.[service]', '.[operator]')"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="openrouter-guard",
        description="One shared circuit breaker for every worker that calls OpenRouter.",
        epilog="Settings come from the environment: REDIS_URL, OPENROUTER_API_KEY, OPENROUTER_GUARD_*. "
        "docs/configuration.md lists all of them with their defaults.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    up = commands.add_parser("up", help="run everything on embedded defaults, to try it out")
    up.add_argument("--host", default="127.0.0.1")
    up.add_argument("--port", type=_port, default=8080, help="of the health service; another one when it is taken")
    up.set_defaults(run=_up)

    serve = commands.add_parser("serve", help="the health service")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=_port, default=8080)
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
        "-n", "--namespace", action="append", type=_name, metavar="NAME", help="may be given more than once"
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
        type=_namespaced,
        metavar="NAMESPACE/NAME",
        help="first take this Lease from the operator, so that it stops acting; give it back if something fails",
    )
    lease.add_argument(
        "--delete-lease", type=_namespaced, metavar="NAMESPACE/NAME", help="the same, and delete the Lease at the end"
    )
    rescue.add_argument("--dry-run", action="store_true", help="only print the changes")
    rescue.set_defaults(run=_rescue)

    simulate = commands.add_parser("simulate", help="a simulated OpenRouter that fails on demand")
    simulate.add_argument("--host", default="127.0.0.1")
    simulate.add_argument("--port", type=_port, default=8787)
    simulate.set_defaults(run=_simulate)

    probe = commands.add_parser("probe", help="whether calls may go, for exec probes", description=_PROBE)
    _add_probe_options(probe)
    return parser


_PROBE = (
    "Exit status: 0 calls may go; 1 the breaker is not closed, or the account is rate limited; "
    "2 unknown: Redis does not answer, the scope was never used, or a setting is wrong."
)


def _probe_arguments(words: Sequence[str]) -> argparse.Namespace:
    # The other commands' options would take a tenth of a probe's time limit; and a short process need not collect
    # garbage.
    gc.disable()
    parser = argparse.ArgumentParser(
        prog="openrouter-guard probe",
        description=_PROBE,
        # With a given width, it need not load the module that detects the terminal's.
        formatter_class=partial(argparse.HelpFormatter, width=100),
    )
    _add_probe_options(parser)
    return parser.parse_args(words)


def _add_probe_options(probe: argparse.ArgumentParser) -> None:
    probe.add_argument("--on-unknown", choices=("fail", "pass"), default="fail", help="pass: exit 0 instead of 2")
    probe.add_argument("--timeout", type=_seconds, default=0.5, metavar="SECONDS", help="for Redis (default 0.5)")
    probe.set_defaults(run=_probe)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= 65_535):
        raise argparse.ArgumentTypeError(f"{text!r}: write a port from 0 to 65535")
    return int(text)


def _name(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("it is empty: write a name, or -A for all namespaces")
    return text


def _namespaced(text: str) -> tuple[str, str]:
    namespace, _, name = text.partition("/")
    if not namespace or not name:
        raise argparse.ArgumentTypeError(
            f"{text!r}: write a namespace and a name, such as guard/openrouter-guard-operator"
        )
    return namespace, name


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: write seconds above 0, such as 0.5")
    return seconds


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


def _probe(arguments: argparse.Namespace) -> int:
    from .probe import run

    return run(os.environ, timeout_s=arguments.timeout, passes_unknown=arguments.on_unknown == "pass")
