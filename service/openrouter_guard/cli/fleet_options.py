"""The commands that need Redis and nothing else: their options."""

from __future__ import annotations

import argparse

from .arguments import Commands, count, duration, name, object_name

__all__ = ["add_fleet", "add_output", "add_watch", "run_overview"]

_LIMIT = 20


def add_fleet(commands: Commands) -> None:
    status = commands.add_parser("status", help="the state of each scope, since when, why, and what is paused")
    _add_watched(status)
    where = status.add_mutually_exclusive_group()
    where.add_argument(
        "-n", "--namespace", type=object_name, metavar="NAME", help="the resources of this namespace too"
    )
    where.add_argument("-A", "--all-namespaces", action="store_true", help="the resources of all namespaces too")
    status.set_defaults(run=_run_status)

    history = commands.add_parser("history", help="the transitions of the breaker, newest first")
    _add_watched(history)
    _add_limit(history, _LIMIT)
    history.set_defaults(run=_run_history)

    workers = commands.add_parser("workers", help="the workers that report, and the last error of each")
    _add_watched(workers)
    _add_limit(workers, 100)
    workers.set_defaults(run=_run_workers)

    models = commands.add_parser("models", help="the models that cool down or fail, and some that work")
    _add_watched(models)
    _add_limit(models, 100)
    models.set_defaults(run=_run_models)

    _add_override(commands)

    config = commands.add_parser(
        "config",
        help="all settings, with their sources and defaults",
        description="Shows every setting of this environment. Of a secret it shows a fingerprint. Exit status: "
        "0 all settings can be used; 1 one is wrong or unknown.",
    )
    add_output(config)
    config.set_defaults(run=_run_config)

    version = commands.add_parser("version", help="the version of this package, of Python and of the libraries")
    add_output(version)
    version.set_defaults(run=_run_version)


def _add_override(commands: Commands) -> None:
    override = commands.add_parser(
        "override",
        help="force the breaker open or closed, or switch it off, for a limited time",
        description="A person decides instead of the breaker, for the whole fleet of a scope.",
    )
    kinds = override.add_subparsers(required=True, metavar="open|closed|off|clear")
    for kind, help_ in (
        ("open", "no call may go"),
        ("closed", "calls go and count; rate limits still hold"),
        ("off", "every call goes, and none counts"),
    ):
        one = kinds.add_parser(kind, help=help_)
        one.add_argument(
            "--for", dest="for_s", type=duration, required=True, metavar="TIME", help="such as 30m; 30d at most"
        )
        one.add_argument("--reason", required=True, metavar="TEXT", help="shown in the status and the history")
        _add_decision(one)
        one.set_defaults(run=_run_override, kind=kind)
    clear = kinds.add_parser("clear", help="end the override: the breaker decides again")
    _add_decision(clear)
    clear.set_defaults(run=_run_override_clear)


def _add_decision(one: argparse.ArgumentParser) -> None:
    one.add_argument("--scope", type=name, metavar="NAME", help="default: OPENROUTER_GUARD_SCOPE")
    one.add_argument("--by", type=name, metavar="NAME", help="your name in the history; default: user@host")
    add_output(one)


def add_watch(command: argparse.ArgumentParser) -> None:
    command.add_argument("-w", "--watch", action="store_true", help="every two seconds, until Ctrl-C")


def _add_watched(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--scope",
        action="append",
        type=name,
        metavar="NAME",
        help="may be given more than once; default: OPENROUTER_GUARD_SCOPE and …_FURTHER_SCOPES",
    )
    add_watch(command)
    add_output(command)


def add_output(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "-o", "--output", choices=("table", "json", "yaml"), default="table", help="docs/command-line.md has the JSON"
    )


def _add_limit(command: argparse.ArgumentParser, default: int) -> None:
    command.add_argument(
        "--limit", type=count, default=default, metavar="NUMBER", help=f"at most this many (default {default})"
    )


def _run_status(arguments: argparse.Namespace) -> int:
    if arguments.all_namespaces or arguments.namespace:
        from .cluster.run import run_status as run_status_of_cluster

        return run_status_of_cluster(arguments)
    from .fleet.run import run_status

    return run_status(arguments)


def _run_history(arguments: argparse.Namespace) -> int:
    from .fleet.run import run_history

    return run_history(arguments)


def _run_workers(arguments: argparse.Namespace) -> int:
    from .fleet.run import run_workers

    return run_workers(arguments)


def _run_models(arguments: argparse.Namespace) -> int:
    from .fleet.run import run_models

    return run_models(arguments)


def _run_override(arguments: argparse.Namespace) -> int:
    from .fleet.run import run_override

    return run_override(arguments)


def _run_override_clear(arguments: argparse.Namespace) -> int:
    from .fleet.run import run_override_clear

    return run_override_clear(arguments)


def _run_config(arguments: argparse.Namespace) -> int:
    from .fleet.run import run_config

    return run_config(arguments)


def _run_version(arguments: argparse.Namespace) -> int:
    from .fleet.run import run_version

    return run_version(arguments)


def run_overview(arguments: argparse.Namespace) -> int:
    """Without a command."""
    from .fleet.run import print_overview, print_version

    return print_version() if arguments.version else print_overview()
