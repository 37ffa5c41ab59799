"""Classifies an exception of a client library, or an answer.

Nothing is imported or read for it, and nothing raises: unknown evidence is no evidence, and the caller has its own
exception to see.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence

from openrouter_guard.rules.error_codes import status_of as status_of_words
from openrouter_guard.rules.parsing import text_of
from openrouter_guard.rules.signals import NEUTRAL, SUCCESS, Effect, ErrorType, Signal, classify_status
from openrouter_guard.worker.view import View

from .bodies import error_in, is_blank, is_cut, is_page, parsed
from .causes import attribute, branches, package, refusal_in
from .client_frames import Read, read_by
from .evidence import bodies_of, headers_in, headers_of, http_status, status_of
from .libraries import FOREIGN, Meaning, meaning_of

__all__ = ["NOTHING_CAME", "UNREADABLE", "read_clock", "classify_answer", "classify_exception", "was_upstreams_fault"]

UNREADABLE = Signal(Effect.FAILURE, ErrorType.UNKNOWN_ERROR, "the answer is not in the API's documented format")
"""Something other than the API answered: a web page, a redirect, half a body."""
NOTHING_CAME = Signal(Effect.FAILURE, ErrorType.UNKNOWN_ERROR, "the stream ended before its answer did")
_RETRIED = re.compile(r"too many ([45][0-9]{2}) error responses")
_MISTAKES = (TypeError, ValueError, RuntimeError, LookupError, AttributeError, AssertionError, NameError)
_NO_ANSWER = (Meaning.TIMEOUT, Meaning.NETWORK)
_WRAPPERS = (Meaning.WRAPPER, Meaning.UNREADABLE, Meaning.RETRIES)
_RANKS = (Effect.NEUTRAL, Effect.MODEL, Effect.FAILURE, Effect.RATE_LIMIT)


def read_clock(view: View) -> float:
    """Return the time in Unix seconds: by Redis' clock, or this machine's if that is unknown."""
    return view.now if view.is_known else time.time()


def classify_exception(error: BaseException | None, *, now: float | None = None) -> Signal:
    """Return the signal of a guarded block's exception; None is a success, the caller's own mistakes are neutral.

    Causes (``raise … from``) and members of groups are followed, within limits.

    Args:
        error: Anything at all; never raises.
        now: Unix seconds by Redis' clock, for answers without a ``Date``; None: this machine's.
    """
    if error is None:
        return SUCCESS
    if not isinstance(error, Exception | BaseExceptionGroup):
        return NEUTRAL
    try:
        found = [_of_branch(branch, now) for branch in branches(error)]
    except Exception:  # noqa: BLE001  they are somebody else's objects: then nothing can be known
        return NEUTRAL
    return max(found, key=lambda signal: (_RANKS.index(signal.effect), signal.wait_s or 0.0), default=NEUTRAL)


def was_upstreams_fault(error: BaseException | None) -> bool:
    """Return whether the same request may succeed later, because OpenRouter or the way to it was at fault.

    True for refusals of the guard, outages, timeouts, rate limits, a failing provider, and a refused key or account.
    False for a request that cannot be answered, and for an error that is not about OpenRouter.

    Args:
        error: The exception of a guarded call, wrapped or not; never raises.

    >>> was_upstreams_fault(TimeoutError()), was_upstreams_fault(KeyError("choices"))
    (True, False)
    """
    if refusal_in(error) is not None:
        return True
    signal = classify_exception(error)
    is_neutral = signal.effect in (Effect.NEUTRAL, Effect.SUCCESS)
    return not is_neutral or signal.error_type is ErrorType.RATE_LIMITED


def classify_answer(
    status_code: int, *, body: object = None, headers: object = None, now: float | None = None
) -> Signal:
    """Return the signal of an answer; a 200 whose body carries ``error`` is that error.

    Args:
        status_code: Status of the HTTP answer.
        body: Parsed JSON, text, bytes, or an SDK's object for it.
        headers: Headers of the answer, in any case: a mapping, or pairs.
        now: Unix seconds by Redis' clock, for answers without a ``Date``; None: this machine's.

    A redirect says nothing: whoever follows it will know. Never raises.
    """
    status = http_status(status_code)
    if status is None:
        return UNREADABLE if isinstance(status_code, int) and status_code >= 600 else NEUTRAL
    try:
        error = error_in(parsed(body), is_refusal=status >= 400)
    except Exception:  # noqa: BLE001  the status alone must do
        error = {}
    return _classify_status(status, error, headers_in(headers), now)


def _classify_status(
    status: int, error: Mapping[str, object], headers: Mapping[str, str], now: float | None
) -> Signal:
    now = time.time() if now is None else now
    try:
        status = status_of_words(error) if status < 400 and error else status
        return (
            NEUTRAL
            if status < 200 or 300 <= status < 400
            else classify_status(status, error=error, headers=headers, now=now)
        )
    except Exception:  # noqa: BLE001  the status alone must do
        return classify_status(status, now=now)


def _of_branch(branch: Sequence[BaseException], now: float | None) -> Signal:
    """Return the signal of an exception and its causes.

    The first is the caller's exception, the last the root cause.
    """
    links = [(each, meaning_of(each)) for each in branch if isinstance(each, Exception | BaseExceptionGroup)]
    if any(meaning is Meaning.OWN or _is_foreign(each) for each, meaning in links):
        return NEUTRAL
    answers = [number for number, link in enumerate(links) if _is_answer(*link)]
    # A wrapper may have a status for lack of an answer: the exception nearer to the wire counts.
    nearer = links[answers[-1] + 1 :] if answers else links
    for each, meaning in reversed(nearer):
        found = _without_status(each, meaning, now)
        if found is not None:
            return found
    if answers and not any(meaning in _NO_ANSWER for _, meaning in nearer):
        return _refused([links[number][0] for number in answers], now)
    firm = [link for link in links if link[1] in _NO_ANSWER]
    if not firm and len(links) > 1 and _is_of_python(links[-1][0]) and package(type(links[-2][0])) != "litellm":
        return NEUTRAL
    known = firm[:1] or [link for link in links if link[1] in _WRAPPERS][-1:]
    return _no_answer(*known[0]) if known else NEUTRAL


def _is_answer(error: BaseException, meaning: Meaning | None) -> bool:
    is_made_up = meaning is Meaning.WRAPPER and package(type(error)) == "litellm"
    if meaning is Meaning.SERVER or is_made_up or status_of(error) is None:
        return False
    # A plain exception with a status: from a library that parses a body and invents a status.
    read = read_by(error) if type(error) is Exception else None
    return read is None or read.response is not None


def _without_status(error: BaseException, meaning: Meaning | None, now: float | None) -> Signal | None:
    """Return the signal of an exception about an answer without a status; None if there is none."""
    if meaning is Meaning.IN_STREAM or type(error) is ValueError:
        body = next(bodies_of(error), None)
        # For an error in a stream, the body is the content of ``error``, in any form.
        found = error_in(parsed(body)) or (error_in({"error": body}) if meaning is Meaning.IN_STREAM else {})
        if found:
            return _classify_status(200, found, headers_of(error), now)
    read = read_by(error)
    if read is not None and read.response is None:
        return _of_read(read, now)
    retried = _RETRIED.search(_text(error)) if meaning is Meaning.RETRIES else None
    return _classify_status(int(retried[1]), {}, {}, now) if retried else None


def _of_read(read: Read, now: float | None) -> Signal | None:
    """Return the signal of a body that a client could not read as an answer; None if it may be something else."""
    body = parsed(read.body)
    if error := error_in(body):
        return _classify_status(200, error, {}, now)
    if not read.is_sure:
        return UNREADABLE if is_page(read.body) or is_blank(read.body) or is_cut(read.body) else None
    # A valid answer may be too new for the client: no reason to stop a fleet.
    return UNREADABLE if body is None else NEUTRAL


def _no_answer(error: BaseException, meaning: Meaning | None) -> Signal:
    if meaning in (Meaning.UNREADABLE, Meaning.RETRIES):
        return UNREADABLE
    error_type = ErrorType.TIMEOUT if meaning is Meaning.TIMEOUT else ErrorType.NETWORK_ERROR
    return Signal(Effect.FAILURE, error_type, text_of(type(error).__name__, 100))


def _refused(answers: Sequence[BaseException], now: float | None) -> Signal:
    """Return the signal of an answer that a client rejected; never a success.

    The exception nearest to the wire counts: a wrapper may have a status of its own. Others may add missing parts.
    """
    nearest = list(reversed(answers))
    status = next((found for each in nearest if (found := status_of(each) or 0) >= 400), status_of(nearest[0]) or 0)
    bodies = [parsed(body) for each in nearest for body in bodies_of(each)]
    errors = (error_in(body, is_refusal=status >= 400) for body in bodies)
    error = next(filter(None, errors), {})
    headers: dict[str, str] = {}
    for each in nearest:
        headers = headers_of(each) | headers
    if status >= 400 or error:
        return _classify_status(status, error, headers, now)
    # A valid body may be too new for the client: no reason to stop a fleet.
    return NEUTRAL if status < 300 and any(body is not None for body in bodies) else UNREADABLE


def _is_foreign(error: BaseException) -> bool:
    return any(package(kind) in FOREIGN for kind in type(error).__mro__)


def _is_of_python(error: BaseException) -> bool:
    """Return whether it is a mistake in code, such as a closed client or an invalid header.

    SDKs report any exception during sending as a network error; litellm also during reading.
    """
    return isinstance(error, _MISTAKES) and package(type(error)) == "builtins"


def _text(error: BaseException) -> str:
    return text_of(next(iter(attribute(error, "args") or ()), ""))
