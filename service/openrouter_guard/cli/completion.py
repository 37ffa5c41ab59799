"""``openrouter-guard completion bash|zsh|fish``: scripts made from the options themselves."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["NAMES", "SHELLS", "script"]

NAMES = ("openrouter-guard", "kubectl-openrouter")


@dataclass(frozen=True, slots=True)
class _Command:
    """One command: the words that lead to it, its options and choices, and its commands with their help."""

    path: Sequence[str]
    options: Sequence[str]
    choices: Sequence[str]
    commands: Mapping[str, str]

    @property
    def words(self) -> str:
        return " ".join((*self.commands, *self.choices, *self.options))


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """Return the completion script for a shell of :data:`SHELLS`."""
    return SHELLS[shell](list(_commands(parser, ())))


def _commands(parser: argparse.ArgumentParser, path: Sequence[str]) -> Iterator[_Command]:
    options: list[str] = []
    choices: list[str] = []
    commands: dict[str, argparse.ArgumentParser] = {}
    help_: dict[str, str] = {}
    for action in parser._actions:  # noqa: SLF001  argparse has no public way to list them
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001  as above
            commands = dict(action.choices)
            help_ = {each.dest: each.help or "" for each in action._choices_actions}  # noqa: SLF001  as above
        elif action.option_strings:
            options += action.option_strings
        elif action.choices:
            choices += map(str, action.choices)
    yield _Command(path, options, choices, {name: help_.get(name, "") for name in commands})
    for name, below in commands.items():
        yield from _commands(below, (*path, name))


def _bash(commands: Sequence[_Command]) -> str:
    known = "|".join(f'" {" ".join(each.path)}"' for each in commands if each.path)
    words = "\n".join(f'    "{_path(each)}") words="{each.words}" ;;' for each in commands)
    complete = "\n".join(f"complete -F _openrouter_guard {name}" for name in NAMES)
    return f"""\
# source <(openrouter-guard completion bash)
_openrouter_guard() {{
  local path="" words="" word
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case "$path $word" in
      {known}) path="$path $word" ;;
    esac
  done
  case "$path" in
{words}
  esac
  COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
{complete}
"""


def _path(command: _Command) -> str:
    return "".join(f" {word}" for word in command.path)


def _zsh(commands: Sequence[_Command]) -> str:
    head = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"
    return f"# source <(openrouter-guard completion zsh)\n{head}{_bash(commands).partition(chr(10))[2]}"


def _fish(commands: Sequence[_Command]) -> str:
    lines = ["# openrouter-guard completion fish | source"]
    for name in NAMES:
        lines += [line for each in commands for line in _fish_lines(name, each)]
    return "\n".join(lines) + "\n"


def _fish_lines(name: str, command: _Command) -> Iterator[str]:
    seen = [f"__fish_seen_subcommand_from {word}" for word in command.path]
    below = f"not __fish_seen_subcommand_from {' '.join(command.commands)}" if command.commands else ""
    when = "; and ".join(filter(None, [*seen, below])) or "true"
    for word, help_ in (*command.commands.items(), *((choice, "") for choice in command.choices)):
        quoted = help_.replace("\\", "\\\\").replace("'", "\\'")
        yield f"complete -c {name} -f -n '{when}' -a {word} -d '{quoted}'"
    for option in command.options:
        flag = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
        yield f"complete -c {name} -n '{when}' {flag}"


SHELLS: Mapping[str, Callable[[Sequence[_Command]], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
