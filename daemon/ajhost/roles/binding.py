"""Reads a handler's signature, once at load: which parameter gets the task and which the payload, when its default is
used instead, and which signature is refused, or which annotation, since it names nothing at run time (TYPE_CHECKING).
`payload_readers.py` makes the argument of the payload.

    async def send(task: Task) -> ...                   the task alone
    async def send(mail: Mail, task: Task) -> ...       the payload validated as `Mail`, and the task
    def resize(image: bytes) -> ...                     the payload as it is
    def clean_up() -> ...                               nothing

A handler of the task alone is called as it is. pydantic is imported for the first payload but `bytes` and `str`.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable
from typing import Any

from ajhost.api import Task
from ajhost.roles.payload_readers import PayloadReader, Unbindable, payload_reader, type_name

_EMPTY = inspect.Parameter.empty
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_TASK = re.compile(r"\s*['\"]?(\w+\.)*Task\b")
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Unfit(Exception):
    """It is no lifespan, or no middleware. The text says what would be."""


def bind(name: str, function: Callable[..., Any]) -> tuple[Callable[[Any], Any], PayloadReader | None]:
    """Returns what to call with a task, so that `function` gets what its parameters ask for; `name` is for errors.

    Returns the reader of the payload with it; None where the function gets the task alone.

    :raises Unbindable: with the signature that would do.
    """
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError) as error:
        if isinstance(function, functools.partial) and "incorrect arguments" in str(error):
            raise Unbindable(f"{name} is a partial with arguments that its function does not take") from None
        return function, None  # written in C, without a signature
    except NameError as error:  # Python 3.14 evaluates annotations here
        raise Unbindable(f"{name}: an annotation cannot be resolved: {error}") from None
    shown = _shown(name, signature)
    parameters = [p for p in signature.parameters.values() if p.kind not in _VARIADIC]
    hints = {p.name: _annotation(name, function, p) for p in parameters}
    tasks = [p for p in parameters if _wants_task(hints[p.name])]
    required = [p for p in parameters if p.default is _EMPTY and p not in tasks]
    if len(tasks) > 1:
        raise Unbindable(f"{shown}: {tasks[0].name} and {tasks[1].name} are both a Task; a handler gets one")
    task = tasks[0] if tasks else None
    if not tasks and not required:
        # the first typed parameter with a default gets the payload; without one, the task is what can be given
        required = [p for p in parameters if hints[p.name] not in (_EMPTY, Any, object)][:1]
        if not required:
            return _alone(shown, function, signature), None
    if task is None:
        task = _unmarked(required, hints)
    others = [p for p in required if p is not task]
    if len(others) > 1 or (task is None and len(required) > 1):
        raise Unbindable(_too_many(name, shown, required, task, hints))
    if not others:
        assert task is not None
        return _passing(shown, function, signature, task, None, None), None
    (payload,) = others
    hint = hints[payload.name]
    reader = payload_reader(name, payload.name, Any if hint is _EMPTY else hint)
    return _passing(shown, function, signature, task, payload, reader), reader


def _shown(name: str, signature: inspect.Signature) -> str:
    bare = inspect.Signature(list(signature.parameters.values()))
    return f"{name}{bare}".replace("'", "")


def _unmarked(required: list[inspect.Parameter], hints: dict[str, Any]) -> inspect.Parameter | None:
    """Returns the task's parameter if none is annotated `Task`: the only one without an annotation, or named `task`."""
    bare = [p for p in required if hints[p.name] is _EMPTY]
    if len(bare) == 1 and len(required) <= 2:
        return bare[0]
    named = [p for p in required if p.name == "task" and hints[p.name] in (_EMPTY, Any, object)]
    return named[0] if named else None


def _too_many(
    name: str,
    shown: str,
    required: list[inspect.Parameter],
    task: inspect.Parameter | None,
    hints: dict[str, Any],
) -> str:
    rest = [p.name for p in required if p is not task and p.name != "task"]
    chosen = next((name for name in rest if hints[name] is not _EMPTY), rest[0])
    kind = hints[chosen]
    would = f"{chosen}: {'Payload' if kind is _EMPTY else type_name(kind)}"
    called = name.rpartition(":")[2]
    several = "" if len(rest) < 2 else f", where a dataclass or a TypedDict may have {', '.join(rest)}"
    return (
        f"{shown} cannot be called with one argument, the task, nor with a payload and the task: it needs "
        f"{', '.join(p.name for p in required)}. What would do: {called}(task: Task) or "
        f"{called}({would}, task: Task){several}"
    )


def _alone(shown: str, function: Callable[..., Any], signature: inspect.Signature) -> Callable[[Any], Any]:
    """Returns what to call if no parameter is required: the first one gets the task; without any, it gets nothing."""
    if not signature.parameters:
        _check_wrapper(shown, function, 0, [])
        return lambda task: function()
    try:
        signature.bind(object())
    except TypeError:
        called = shown.partition("(")[0].rpartition(":")[2]
        raise Unbindable(
            f"{shown} cannot be called with one argument, the task. What would do: {called}(task: Task), {called}()"
        ) from None
    return function


# -- calling ---------------------------------------------------------------------------------------


def _passing(
    shown: str,
    function: Callable[..., Any],
    signature: inspect.Signature,
    task: inspect.Parameter | None,
    payload: inspect.Parameter | None,
    reader: PayloadReader | None,
) -> Callable[[Any], Any]:
    names = list(signature.parameters)
    wanted = [p for p in (task, payload) if p is not None]
    by_place = [p for p in wanted if p.kind in _POSITIONAL]
    by_name = [p for p in wanted if p.kind not in _POSITIONAL]
    by_place.sort(key=lambda p: names.index(p.name))
    if [names.index(p.name) for p in by_place] != list(range(len(by_place))):
        keyword = [p for p in by_place if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
        if keyword != by_place:
            raise Unbindable(f"{shown} has positional parameters before its task and payload")
        by_place, by_name = [], by_place + by_name
    _check_wrapper(shown, function, len(by_place), [p.name for p in by_name])
    if reader is None:
        if by_place:
            return function
        (key,) = (p.name for p in by_name)
        return lambda task: function(**{key: task})
    assert payload is not None
    read = reader.read if payload.default is _EMPTY else _or_default(reader.read, payload.default)
    places = [p is task for p in by_place]
    if by_name:
        return _by_name(function, read, places, {p.name: p is task for p in by_name})
    if places == [False]:
        return lambda task: function(read(task.payload))
    if places == [False, True]:
        return lambda task: function(read(task.payload), task)
    return lambda task: function(task, read(task.payload))


def _or_default(read: Callable[[bytes], Any], default: Any) -> Callable[[bytes], Any]:
    return lambda payload: read(payload) if payload else default


def _by_name(
    function: Callable[..., Any],
    read: Callable[[bytes], Any],
    places: list[bool],
    names: dict[str, bool],
) -> Callable[[Any], Any]:
    """Returns a call with keyword arguments. `places`, `names`: whether an argument is the task, not the payload."""

    def call(task: Any) -> Any:
        argument = read(task.payload)
        given = [task if is_task else argument for is_task in places]
        return function(*given, **{name: task if is_task else argument for name, is_task in names.items()})

    return call


def _check_wrapper(shown: str, function: Callable[..., Any], places: int, names: list[str]) -> None:
    """Refuses a decorator's wrapper that does not take the arguments that `functools.wraps` says it takes."""
    try:
        outer = inspect.signature(function, follow_wrapped=False)
        outer.bind(*(object() for _ in range(places)), **dict.fromkeys(names))
    except TypeError:
        raise Unbindable(
            f"{shown}: a decorator's {_shown('wrapper', outer)} takes other arguments than the function that it wraps; "
            "give it (*args, **kwargs)"
        ) from None
    except ValueError:
        return


def called_function(function: Any) -> Any:
    """Returns the function that decides how a call behaves: what a partial wraps, what an object's `__call__` is."""
    while isinstance(function, functools.partial):  # before `isroutine`, which it is since Python 3.14
        function = function.func
    return function if inspect.isroutine(function) else type(function).__call__


def takes(function: Any, count: int) -> bool:
    """Whether it can be called with so many arguments, as far as that can be told."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # written in C, without a signature
        return True
    return True


# -- annotations -----------------------------------------------------------------------------------


def _annotation(name: str, function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """Returns the type of a parameter; of a text, what it names where the function was written."""
    given = parameter.annotation
    if given is _EMPTY or isinstance(given, type):
        return given
    holder = types.SimpleNamespace(__annotations__={parameter.name: given})
    try:
        plain = _plain(function)
        names, closure = getattr(plain, "__globals__", {}), _closure(plain)
        return typing.get_type_hints(holder, names, closure, include_extras=True)[parameter.name]
    except Exception as error:
        if isinstance(given, str) and _TASK.match(given):
            return Task  # imported for the type checker alone, it or its State
        raise Unbindable(
            f"{name}: the annotation {given!r} of {parameter.name} cannot be resolved: {error}. It must be a name "
            "of the handler's module at run time, not for the type checker alone or of a function's inside"
        ) from None


def _plain(function: Any) -> Any:
    """Returns the function whose definition has the annotations."""
    while True:
        if isinstance(function, functools.partial):  # before `isroutine`, as above
            function = function.func
        elif (wrapped := getattr(function, "__wrapped__", None)) is not None:
            function = wrapped
        elif inspect.ismethod(function):
            function = function.__func__
        elif not inspect.isroutine(function) and inspect.isroutine(type(function).__call__):
            function = type(function).__call__
        else:
            return function


def _closure(function: Any) -> dict[str, Any]:
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    found = {}
    for name, cell in zip(names, getattr(function, "__closure__", None) or (), strict=False):
        with contextlib.suppress(ValueError):  # not assigned yet
            found[name] = cell.cell_contents
    return found


def _wants_task(hint: Any) -> bool:
    if hint is Task or typing.get_origin(hint) is Task:
        return True
    if isinstance(hint, type):
        return issubclass(hint, Task)
    if typing.get_origin(hint) is typing.Annotated:
        return _wants_task(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(_wants_task(part) for part in typing.get_args(hint))
    return False
