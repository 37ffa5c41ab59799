"""Finds the answer that a client library was reading when it raised: an invalid answer causes exceptions of any type.

``json.JSONDecodeError`` comes from ``response.json()``, and also from a worker's own ``json.loads`` of a model's
text. Only the frames of the traceback tell them apart; and they hold the answer.

Seen in httpx 0.28, httpx2 2.16, requests 2.34, aiohttp 3.14, openai 1.109 to 3.54, langchain-openai 1.7,
langchain-openrouter 0.2, pydantic-ai 2.38, instructor 1.17, litellm 1.110.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

from .causes import attribute, package

__all__ = ["Read", "read_by"]

_DECODERS = frozenset({"json", "simplejson", "codecs", "encodings", "orjson", "ujson", "msgspec"})
_CLIENTS = frozenset({"httpx", "httpx2", "requests", "niquests", "aiohttp", "urllib3", "curl_cffi"})
"""Packages whose responses have a method ``json``."""
_SDKS = frozenset({"openai", "anthropic", "groq", "together", "cerebras"})
"""Packages whose streams read events in a module of that name."""
_BODIES: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("langchain_openai", "_create_chat_result"): ("response_dict", "response"),
    ("langchain_openai", "_construct_lc_result_from_responses_api"): ("response",),
    ("langchain_openrouter", "_create_chat_result"): ("response",),
    ("pydantic_ai", "_process_response"): ("response",),
    ("litellm", "convert_to_model_response_object"): ("response_object",),
}
"""Functions that parse an answer, and their names for it, the parsed one first."""
_EMPTY_STREAM = "No generation chunks were returned"
_FIELDS = frozenset({"choices", "output", "output_text", "data", "content", "usage"})
"""Methods of SDKs' answers. SDKs return text for an answer that is not labelled as JSON."""
_FRAMES_MOST = 2_000
_LAST = 24


@dataclass(frozen=True, slots=True)
class Read:
    """An answer that could not be read.

    Attributes:
        response: Response of an HTTP library, with its status; None if only the body is known.
        body: Parsed, as text, or an SDK's object for it; None if nothing came.
        is_sure: Whether a library treated it as an answer; otherwise it may be any text.
    """

    response: Any = None
    body: object = None
    is_sure: bool = True


def read_by(error: BaseException) -> Read | None:
    """Return the answer that was being read when *error* was raised; None if it is about something else.

    The time grows only with the depth of the stack, up to a limit. Never raises.
    """
    try:
        return _kept(error) or _in_frame(error)
    except Exception:  # noqa: BLE001  they are somebody else's objects
        return None


def _kept(error: BaseException) -> Read | None:
    """Return the part that the exception itself has kept."""
    if isinstance(error, AttributeError):
        read = error.obj if error.name in _FIELDS else None
        return Read(body=read, is_sure=False) if isinstance(read, str | bytes) else None
    if package(type(error)) == "instructor":
        read = attribute(error, "last_completion")
        return None if read is None else Read(body=read, is_sure=False)
    return None


def _in_frame(error: BaseException) -> Read | None:
    frame = _innermost(error)
    if frame is None:
        return None
    module, function = str(frame.f_globals.get("__name__", "")), frame.f_code.co_name
    library = module.partition(".")[0]
    if library in _CLIENTS and function == "json":
        return Read(response=frame.f_locals.get("self"))
    if (library in _SDKS and module.endswith("._streaming")) or library == "httpx_sse":
        return Read(body=attribute(frame.f_locals.get("self"), "data"))
    if library == "langchain_core" and isinstance(error, ValueError) and error.args == (_EMPTY_STREAM,):
        return Read()
    names = _BODIES.get((library, function))
    return None if names is None else Read(body=next(_named(frame, names), None))


def _named(frame: FrameType, names: tuple[str, ...]) -> Iterator[object]:
    local = frame.f_locals
    return (local[name] for name in names if local.get(name) is not None)


def _innermost(error: BaseException) -> FrameType | None:
    """Return the frame where it was raised, without the decoders of text."""
    frames: deque[FrameType] = deque(maxlen=_LAST)
    trace = error.__traceback__
    for _ in range(_FRAMES_MOST):
        if trace is None:
            break
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    while frames and str(frames[-1].f_globals.get("__name__", "")).partition(".")[0] in _DECODERS:
        frames.pop()
    return frames[-1] if frames else None
