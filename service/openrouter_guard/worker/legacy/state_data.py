"""The state as existing readers hold it: a pydantic model if pydantic is installed, else an equivalent class."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

from openrouter_guard.rules.signals import OpenRouterState

__all__ = ["OpenRouterStateData"]

_AMOUNT, _MOMENT = float | None, datetime | None
_NAME = "OpenRouterStateData"
_ABOUT = """The state of the upstream. Amounts are US dollars, times have an offset.

``circuit_breaker_open`` says whether the breaker is not closed, ``error_details`` is text about the last error, and
``last_check`` the time when anybody last told anything.
"""


@dataclass
class StateData:
    """The state of the upstream. Amounts are US dollars, times have an offset; values are converted.

    Attributes:
        last_check: Time of the last report of any process.
        circuit_breaker_open: Whether the breaker is not closed.
        error_details: Text about the last error.

    Raises:
        ValueError: If a value cannot be converted.
    """

    state: OpenRouterState
    message: str
    balance: float | None = None
    usage_today: float | None = None
    usage_month: float | None = None
    last_check: datetime = field(kw_only=True)
    last_api_call: datetime | None = None
    error_details: str | None = None
    consecutive_failures: int = 0
    last_success: datetime | None = None
    circuit_breaker_open: bool = False
    rate_limit_reset: datetime | None = None

    def __post_init__(self) -> None:
        for name, convert in _CONVERTED.items():
            value = getattr(self, name)
            setattr(self, name, convert(value) if value is not None or name in _REQUIRED else None)

    def model_dump(self, *, mode: str = "python", exclude_none: bool = False, **_: Any) -> dict[str, Any]:
        """The fields by name; with ``mode="json"`` as JSON has them."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        kept = {name: value for name, value in found.items() if value is not None or not exclude_none}
        return {name: _plain(value) for name, value in kept.items()} if mode == "json" else kept

    def model_dump_json(self, **options: Any) -> str:
        return json.dumps(self.model_dump(mode="json", **options), separators=(",", ":"))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, **_: Any) -> Self:
        return type(self)(**(self.model_dump() | dict(update or {})))

    @classmethod
    def model_validate(cls, obj: Any, **_: Any) -> Self:
        if isinstance(obj, cls):
            return obj
        if not isinstance(obj, Mapping):
            raise ValueError(f"{_NAME} is made of a mapping, not of {type(obj).__name__}")  # noqa: TRY004  as pydantic
        known = {each.name for each in fields(cls)}
        missing = sorted(_REQUIRED - obj.keys())
        if missing:
            raise ValueError(f"{_NAME} lacks {', '.join(missing)}")
        return cls(**{name: value for name, value in obj.items() if name in known})

    @classmethod
    def model_validate_json(cls, json_data: str | bytes, **_: Any) -> Self:
        return cls.model_validate(json.loads(json_data))

    def dict(self, **options: Any) -> dict[str, Any]:
        return self.model_dump(**options)

    def json(self, **options: Any) -> str:
        return self.model_dump_json(**options)

    def copy(self, *, update: Mapping[str, Any] | None = None, **_: Any) -> Self:
        return self.model_copy(update=update)


def _moment(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    if isinstance(value, str):
        return datetime.fromisoformat(value)
    raise ValueError(f"{value!r} is no time")


def _flag(value: Any) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    found = words.get(str(value).lower())
    if found is None:
        raise ValueError(f"{value!r} is neither true nor false")
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")  # noqa: TRY004  as pydantic
    return value


_REQUIRED = {"state", "message", "last_check"}
_CONVERTED: Mapping[str, Callable[[Any], Any]] = {
    "state": OpenRouterState,
    "message": _text,
    "balance": float,
    "usage_today": float,
    "usage_month": float,
    "last_check": _moment,
    "last_api_call": _moment,
    "error_details": _text,
    "consecutive_failures": int,
    "last_success": _moment,
    "circuit_breaker_open": _flag,
    "rate_limit_reset": _moment,
}


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _model() -> type:
    """The pydantic model, created on first use: the base install has no pydantic, and importing it takes long."""
    try:
        create_model: Any = import_module("pydantic").create_model
    except ImportError:
        plain: type = type(_NAME, (StateData,), {"__module__": __name__, "__doc__": _ABOUT})
        return plain
    made: type = create_model(
        _NAME,
        __module__=__name__,
        __doc__=_ABOUT,
        state=(OpenRouterState, ...),
        message=(str, ...),
        balance=(_AMOUNT, None),
        usage_today=(_AMOUNT, None),
        usage_month=(_AMOUNT, None),
        last_check=(datetime, ...),
        last_api_call=(_MOMENT, None),
        error_details=(str | None, None),
        consecutive_failures=(int, 0),
        last_success=(_MOMENT, None),
        circuit_breaker_open=(bool, False),
        rate_limit_reset=(_MOMENT, None),
    )
    return made


if TYPE_CHECKING:

    class OpenRouterStateData(StateData):
        pass

else:

    def __getattr__(name: str) -> Any:
        if name != _NAME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = _model()
        return globals()[name]
