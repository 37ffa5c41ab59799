"""The options of ``probe``, apart from all others, which would take a tenth of its time limit."""

from __future__ import annotations

import argparse
import gc
import os
from collections.abc import Sequence
from functools import partial

from .arguments import seconds

__all__ = ["PROBE", "add_probe_options", "probe_arguments"]

PROBE = (
    "Exit status: 0 calls may go; 1 the breaker is not closed, or the account is rate limited; "
    "2 unknown: Redis does not answer, the scope was never used, or a setting is wrong."
)


def probe_arguments(words: Sequence[str]) -> argparse.Namespace:
    # A short process need not collect garbage.
    gc.disable()
    parser = argparse.ArgumentParser(
        prog="openrouter-guard probe",
        description=PROBE,
        # With a given width, it need not load the module that detects the terminal's.
        formatter_class=partial(argparse.HelpFormatter, width=100),
    )
    add_probe_options(parser)
    return parser.parse_args(words)


def add_probe_options(probe: argparse.ArgumentParser) -> None:
    probe.add_argument("--on-unknown", choices=("fail", "pass"), default="fail", help="pass: exit 0 instead of 2")
    probe.add_argument("--timeout", type=seconds, default=0.5, metavar="SECONDS", help="for Redis (default 0.5)")
    probe.set_defaults(run=_probe)


def _probe(arguments: argparse.Namespace) -> int:
    from .probe import run

    return run(os.environ, timeout_s=arguments.timeout, passes_unknown=arguments.on_unknown == "pass")
