"""The access rules: which namespaces may use and override which scopes; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from openrouter_guard.errors import ConfigurationError
from openrouter_guard.keys import DEFAULT_SCOPE

__all__ = ["Access", "Rule"]

EVERY = "*"


class Rule(BaseModel):
    """A rule for some namespaces and scopes; ``*`` stands for all of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    namespaces: tuple[str, ...] = (EVERY,)
    scopes: tuple[str, ...] = (EVERY,)
    override: bool = False

    def holds(self, namespace: str, scope: str) -> bool:
        return _is_in(namespace, self.namespaces) and _is_in(scope, self.scopes)


@dataclass(frozen=True, slots=True)
class Access:
    """All rules; anything that none of them allows is denied.

    By default, every namespace may use the scope ``default``, and none may override it, because one team's resource
    would stop the workers of all.
    """

    rules: tuple[Rule, ...] = (Rule(scopes=(DEFAULT_SCOPE,)),)

    @classmethod
    def parse(cls, text: str) -> Access:
        """Parse the rules from a JSON list; the default if empty.

        Raises:
            ConfigurationError: If they cannot be read.
        """
        if not text.strip():
            return cls()
        try:
            return cls(tuple(TypeAdapter(list[Rule]).validate_json(text)))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise ConfigurationError(
                f"OPENROUTER_GUARD_ACCESS cannot be read: {where}: {first['msg']}; write such as"
                ' [{"namespaces": ["team-a"], "scopes": ["team-a"], "override": true}]'
            ) from None

    def may_use(self, namespace: str, scope: str) -> bool:
        return any(rule.holds(namespace, scope) for rule in self.rules)

    def may_override(self, namespace: str, scope: str) -> bool:
        return any(rule.override and rule.holds(namespace, scope) for rule in self.rules)


def _is_in(name: str, names: Sequence[str]) -> bool:
    return EVERY in names or name in names
