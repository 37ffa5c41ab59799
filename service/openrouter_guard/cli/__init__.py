"""The command line. Each command imports only its own parts: a probe must not pay for the service."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from openrouter_guard.errors import OpenRouterGuardError, StoreUnavailable

__all__ = ["main"]

EXIT_ERROR = 1
_ERROR_MOST = 2_000
_BY_SIGPIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status.

    An error that the user can fix is one line on stderr, not a traceback.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = _arguments(words)
    try:
        status = int(arguments.run(arguments) or 0)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough, as `head` does; Python itself would complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BY_SIGPIPE
    except OpenRouterGuardError as error:
        print(f"openrouter-guard: {_line(error)}{_advice(error)}", file=sys.stderr)
        return EXIT_ERROR
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        if missing in {"openrouter_guard", "openrouter_operator"}:
            raise
        print(f"openrouter-guard: {missing} is not installed: {_EXTRAS}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        return 130
    return status


def _line(error: OpenRouterGuardError) -> str:
    """Return its text as one line: servers say parts of it."""
    from openrouter_guard.rules.parsing import line_of

    return line_of(str(error), _ERROR_MOST)


def _advice(error: OpenRouterGuardError) -> str:
    return "; check REDIS_URL and the way there" if isinstance(error, StoreUnavailable) else ""


_EXTRAS = (
    "in a checkout, pip install '.[all]', or the extra that the command needs ('.[service]', '.[operator]', '.[cli]')"
)


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    if words[:1] == ["probe"]:
        from .probe_options import probe_arguments

        return probe_arguments(words[1:])
    from .parser import parser

    return parser().parse_args(words)
