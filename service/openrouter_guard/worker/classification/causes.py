"""The exceptions behind an exception: its causes, and the members of groups, within limits.

Libraries wrap exceptions: by ``raise … from error``, or in a group. An exception raised while another was handled is
no wrapper, except in litellm. requests and urllib wrap in an argument, urllib3 before 2.0 and ray in an attribute.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from openrouter_guard.errors import CallNotPermitted

__all__ = ["attribute", "branches", "package", "refusal_in"]

_IN_ARGUMENTS = frozenset({"requests", "niquests", "urllib"})
_IN_ATTRIBUTE = {"urllib3": "reason", "ray": "cause"}
LEVELS = 16
MOST = 64
"""Number of exceptions to examine in all, and depth of a chain."""


def refusal_in(exception: BaseException | None) -> CallNotPermitted | None:
    """Return the guard's refusal behind *exception*, or *exception* itself; None if it is about something else.

    Client libraries and frameworks may wrap the refusal of a guarded transport in an error of their own. This follows
    causes (``raise … from``) and exception groups, within limits and also in circles.

    >>> try:
    ...     try:
    ...         raise CallNotPermitted(5.0, "timeout")
    ...     except CallNotPermitted as refused:
    ...         raise RuntimeError("no answer") from refused
    ... except RuntimeError as error:
    ...     refusal_in(error).retry_after_s
    5.0
    """
    try:
        links = [each for branch in branches(exception) for each in branch]
        return next((each for each in links if isinstance(each, CallNotPermitted)), None)
    except Exception:  # noqa: BLE001  who asks has an error already, and it is the one that matters
        return None


def branches(exception: BaseException | None) -> Iterator[list[BaseException]]:
    """Return each path from *exception* to its root cause: one, or one for each member of a group in it.

    Each begins with *exception*. None is longer than the depth limit, and no exception is visited twice except those
    above a group.
    """
    seen: set[int] = set()
    waiting: list[tuple[BaseException | None, list[BaseException]]] = [(exception, [])]
    while waiting:
        link, branch = waiting.pop()
        while link is not None and id(link) not in seen and len(seen) < MOST and len(branch) < LEVELS:
            seen.add(id(link))
            branch = [*branch, link]
            waiting += ((member, branch) for member in reversed(_members(link)))
            link = None if _members(link) else _cause(link)
        if branch and not _members(branch[-1]):
            yield branch


def package(kind: type) -> str:
    """Return the package of a class; the modules of the standard library count as one."""
    module = attribute(kind, "__module__")
    return module.partition(".")[0] if isinstance(module, str) else ""


def attribute(thing: object, name: str) -> Any:
    """Return an attribute of a foreign object; None if it has none, or if reading it fails."""
    try:
        return getattr(thing, name, None)
    except Exception:  # noqa: BLE001  a property may raise anything, and the caller has an error already
        return None


def _members(link: BaseException) -> tuple[BaseException, ...]:
    members = attribute(link, "exceptions") if isinstance(link, BaseExceptionGroup) else ()
    return tuple(each for each in members if isinstance(each, BaseException)) if isinstance(members, tuple) else ()


def _cause(link: BaseException) -> BaseException | None:
    cause = attribute(link, "__cause__")
    if cause is None:
        cause = _wrapped(link, package(type(link)))
    return cause if isinstance(cause, BaseException) else None


def _wrapped(link: BaseException, library: str) -> object:
    """Return exceptions that a library wraps without ``from``."""
    if library == "litellm":
        return attribute(link, "__context__")
    if library in _IN_ARGUMENTS:
        return next(iter(attribute(link, "args") or ()), None)
    return attribute(link, _IN_ATTRIBUTE[library]) if library in _IN_ATTRIBUTE else None
