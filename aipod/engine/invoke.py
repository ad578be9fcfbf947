"""The one place where the user's code is called, and where what it raises is sorted.

What a method raises from our tree passes through with its own class. Everything else, ``SystemExit`` and
``KeyboardInterrupt`` included (a handler that lets them through leaves its caller waiting for ever), becomes a
:class:`~aipod.errors.ModelError`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import traceback
from collections.abc import Callable, Mapping
from types import CoroutineType, TracebackType
from typing import Any

from aipod.engine.call import Call
from aipod.errors import AipodError, Cancelled, InvalidArgument, ModelError, again
from aipod.memory import resident_bytes
from aipod.model.base import AIModelBase
from aipod.model.call import CallSource, running

__all__ = [
    "endpoint",
    "error_of",
    "invoke",
    "invoke_async",
    "memory_of",
    "perform",
    "prepare",
    "returned_error",
    "traceback_text",
]

# Beyond this many linked causes a traceback says nothing more and costs seconds.
_MAX_CAUSES = 16
_OURS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")


def endpoint(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of the model as it is going to be called: with ``binary_data=b""`` where it insists on having one."""
    parameter = inspect.signature(method).parameters.get("binary_data")
    if parameter is None or parameter.default is not parameter.empty:
        return method

    return functools.partial(method, binary_data=b"")


def perform(method: Callable[..., Any], source: CallSource, arguments: dict[str, Any]) -> Any:
    """Call a method of the model on this thread, and run what it returned if that is a coroutine."""
    with running(source):
        value = method(**arguments)
        return asyncio.run(value) if type(value) is CoroutineType else value


def invoke(methods: Mapping[str, Callable[..., Any]], call: Call) -> bool:
    """Run a call on this thread and answer it; says whether it went well. Never raises."""
    try:
        value = perform(methods[call.method], call, call.arguments())
    except BaseException as error:
        call.through = True
        call.fail(error_of(error))
        return False
    call.through = True
    call.finish(value)
    return True


async def invoke_async(methods: Mapping[str, Callable[..., Any]], call: Call) -> bool:
    """The same on an event loop. A cancelled call cancels the coroutine; a plain ``def`` runs on a thread."""
    try:
        method, arguments = methods[call.method], call.arguments()
        with running(call):
            if inspect.iscoroutinefunction(method):
                value = await method(**arguments)
            else:
                value = await asyncio.to_thread(method, **arguments)
    except asyncio.CancelledError:
        call.fail(Cancelled())
        return False
    except BaseException as error:
        call.through = True
        call.fail(error_of(error))
        return False
    call.through = True
    call.finish(value)
    return True


def prepare(instance: AIModelBase) -> None:
    """Make an instance ready to predict."""
    for step in ("load", "warmup"):
        _take(instance, step)


def memory_of(instance: AIModelBase, before: int) -> int:
    """What the model says that it takes, else what the process has grown by since it held ``before`` bytes."""
    says = getattr(instance, "memory_bytes", None)
    if says is not None and not inspect.iscoroutinefunction(says):
        return int(says())
    return max(0, resident_bytes() - before)


def _take(instance: AIModelBase, step: str) -> None:
    """Run a step that the class may have. One that wants arguments is the model's own: 1.0 called none of that name."""
    method = getattr(instance, step, None)
    parameters = inspect.signature(method).parameters.values() if callable(method) else ()
    wants = any(
        one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in parameters
    )
    if callable(method) and not wants:
        method()


def error_of(error: BaseException) -> AipodError:
    """What the caller gets for what the user's code raised."""
    if isinstance(error, AipodError):
        # One that came from a child has said there whose it is.
        error.by_model = error.by_model or _users_frames(error) is not None
        return error
    if isinstance(error, TypeError) and _users_frames(error) is None:
        # It was raised by the call itself, not inside the method: the arguments do not fit its signature.
        return InvalidArgument(f"{error}; pass what the method's signature names")
    return _model_error(error)


def returned_error(error: BaseException) -> AipodError:
    """What the caller gets for an exception that the user's code returned in the place of its output."""
    if not isinstance(error, AipodError):
        return _model_error(error)
    # The same one may stand for several calls.
    copy = again(error)
    copy.by_model = True
    return copy


def _model_error(error: BaseException) -> ModelError:
    return ModelError(_text(error), type=_type_name(error), traceback=traceback_text(error))


def _users_frames(error: BaseException) -> TracebackType | None:
    """Its traceback without our frames at the start, which tell the model's author nothing."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_OURS):
        frames = frames.tb_next
    return frames


def _type_name(error: BaseException) -> str:
    cls = type(error)
    return cls.__qualname__ if cls.__module__ in ("builtins", "__main__") else f"{cls.__module__}.{cls.__qualname__}"


def _text(error: BaseException) -> str:
    try:
        text = str(error)
        # What numpy says of a write to one of our views does not help who does not know that it is one.
        hint = "; arrays of a call are read-only views of it, write to a copy" if "is read-only" in text else ""
        return text + hint
    except BaseException:
        return "(its message cannot be shown: str() of it raised)"


def traceback_text(error: BaseException) -> str:
    """The traceback for the model's author, without our own frames; never raises."""
    chain, cause = 0, error.__cause__ or error.__context__
    while cause is not None and chain <= _MAX_CAUSES:
        chain, cause = chain + 1, cause.__cause__ or cause.__context__
    try:
        lines = traceback.format_exception(type(error), error, _users_frames(error), chain=chain <= _MAX_CAUSES)
        return "".join(lines)
    except BaseException:
        return "(its traceback cannot be shown)"
