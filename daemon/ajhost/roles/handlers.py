"""Loads handlers, lifespan and middleware: finds what `module:function` names, or what it may have meant, decides
whether a handler runs on the loop or in a thread, and reports every problem at once.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import inspect
import json
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ajhost.adapters.own_code import PACKAGE
from ajhost.roles.binding import Unfit, bind, called_function
from ajhost.roles.lifespan import Lifespan, check_lifespan
from ajhost.roles.middleware import Middleware, around, check_middleware
from ajhost.roles.payload_readers import PayloadReader, Unbindable
from ajhost.settings.sections import HandlerSettings, PythonSettings

_LIFESPAN = "python.lifespan"
_NOT_IMPORTED = object()
_LONGEST = 4000
"""Characters of what an import raised that are shown."""
_FRAMES = 4
"""Frames of the user's code that are shown, the innermost ones."""


@dataclass(frozen=True, slots=True)
class LoadedHandler:
    """A handler as configured, and the function that it names. `is_async`: on the loop, else in a thread."""

    route: str
    target: str
    function: Callable[[Any], Any]
    is_async: bool
    timeout: float | None = None
    concurrency: int | None = None
    unwrap: bool = False
    payload: PayloadReader | None = None
    """Makes the argument of a typed payload; `function` calls it."""
    middleware: tuple[Middleware, ...] = ()
    """For a handler in a thread, around which the executor calls it; `function` of an async one calls it itself."""


@dataclass(frozen=True, slots=True)
class HandlerDescription:
    """A loaded handler in words: `kind` is `async` or `thread`, `payload` the type of its payload, if it has one."""

    route: str
    target: str
    kind: str
    payload: str = ""
    schema: str = ""
    """The JSON Schema of its payload, as JSON, where it was asked for and there is one."""


_SCHEMAS_ROOM = 100_000
"""Bytes of all JSON Schemas together: what a message between two processes can have beside everything else."""


class LoadFailed(Exception):
    """Handlers cannot be loaded; `problems` has a text, of several lines perhaps, for each reason."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class NoHandler(Exception):
    """This target is no handler; the text says why."""


def load_handlers(
    handlers: Sequence[HandlerSettings], python: PythonSettings | None = None
) -> dict[str, LoadedHandler]:
    """Imports what the targets name, each module once, and returns the handlers by route.

    Lifespan and middleware of `python` are imported and checked as well.

    :raises LoadFailed: with every problem, whatever the modules do at import (`sys.exit` included).
    """
    imports = _Imports([(_key(h), h.target) for h in handlers] + _application(python))
    middleware: list[Middleware] = []
    for key, target in _application(python):
        with imports.telling(key):
            if (found := imports.find(target)) is _NOT_IMPORTED:
                continue
            if key == _LIFESPAN:
                check_lifespan(target, found)
            else:
                middleware.append(check_middleware(target, found))
    loaded: dict[str, LoadedHandler] = {}
    for settings in handlers:
        with imports.telling(_key(settings)):
            if (found := imports.find(settings.target)) is not _NOT_IMPORTED:
                loaded[settings.route] = _loaded(settings, found, tuple(middleware))
    if imports.problems:
        raise LoadFailed(imports.problems)
    return loaded


def load_lifespan(target: str) -> Lifespan:
    """Returns the lifespan that `load_handlers` has checked, in this process or in another.

    :raises LoadFailed: importing it fails here, though it did not there.
    """
    imports = _Imports([(_LIFESPAN, target)])
    found: Any = None
    with imports.telling(_LIFESPAN):
        found = imports.find(target)
    if imports.problems:
        raise LoadFailed(imports.problems)
    return check_lifespan(target, found)


def _application(python: PythonSettings | None) -> list[tuple[str, str]]:
    """Returns key and target of the lifespan and of each middleware."""
    if python is None:
        return []
    lifespan = [] if python.lifespan is None else [(_LIFESPAN, python.lifespan)]
    return lifespan + [(f"python.middleware[{n}]", target) for n, target in enumerate(python.middleware)]


class _Imports:
    """The modules of targets, each imported once, and the problems of all."""

    def __init__(self, wanted: list[tuple[str, str]]) -> None:
        """`wanted`: keys of the settings, and their targets."""
        self._wanted = wanted
        self._modules: dict[str, ModuleType | None] = {}
        self.problems: list[str] = []

    @contextlib.contextmanager
    def telling(self, key: str) -> Iterator[None]:
        """Records what is raised of a target that is unfit as a problem of its key."""
        try:
            yield
        except (NoHandler, Unfit) as error:
            self.problems.append(f"{key}: {error}")

    def find(self, target: str) -> Any:
        """Returns what a target names; `_NOT_IMPORTED` if its module cannot be imported."""
        name, _, attributes = target.partition(":")
        if name not in self._modules:
            try:
                self._modules[name] = importlib.import_module(name)
            except BaseException as error:  # whatever it is, it must not end the template
                self._modules[name] = None
                keys = ", ".join(key for key, other in self._wanted if other.partition(":")[0] == name)
                self.problems.append(f"{keys}: {_import_problem(name, error)}")
        module = self._modules[name]
        return _NOT_IMPORTED if module is None else _find(module, attributes)


def describe(loaded: dict[str, LoadedHandler], *, schemas: bool = False) -> list[HandlerDescription]:
    """Describes what was loaded, in words. Schemas beyond `_SCHEMAS_ROOM` are left out."""
    described, room = [], _SCHEMAS_ROOM
    for h in loaded.values():
        schema = _schema(h.payload) if schemas and h.payload is not None else ""
        if len(schema) > room:
            schema = ""
        room -= len(schema)
        payload = "" if h.payload is None else h.payload.type_name
        kind = "async" if h.is_async else "thread"
        described.append(HandlerDescription(h.route, h.target, kind, payload, schema))
    return described


def _schema(payload: PayloadReader) -> str:
    try:
        schema = payload.schema()
    except Exception as error:  # of a type that has validation of its own and says nothing of its shape
        schema = {"$comment": f"pydantic has no schema of it: {error}"}
    return "" if schema is None else json.dumps(schema)


def _key(settings: HandlerSettings) -> str:
    return f'handlers."{settings.route}"'


def _import_problem(name: str, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
        near = difflib.get_close_matches(error.name, _siblings(error.name), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        places = ", ".join(entry for entry in sys.path if entry)
        return f"there is no module {error.name!r}{hint} (looked in {places})"
    raised = "".join(traceback.format_exception_only(error)).strip()
    if len(raised) > _LONGEST:
        raised = f"{raised[:_LONGEST]}... ({len(raised)} characters)"
    lines = [f"importing {name} raised {raised}"]
    lines += [
        f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}: {frame.line or ""}'.rstrip()
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<frozen ", PACKAGE)) and frame.filename != importlib.__file__
    ][-_FRAMES:]
    return "\n".join(lines)


def _siblings(name: str) -> list[str]:
    """Returns the modules that exist where `name` was looked for."""
    package, _, _ = name.rpartition(".")
    path = getattr(sys.modules.get(package), "__path__", None) if package else None
    if package in sys.modules and path is None:
        return [package]  # a module, no package: `shop.mail.py`
    prefix = f"{package}." if package else ""
    return [prefix + found.name for found in pkgutil.iter_modules(path)]


def _loaded(settings: HandlerSettings, found: Any, middleware: tuple[Middleware, ...]) -> LoadedHandler:
    function, is_async, payload = callable_of(settings.target, found)
    return LoadedHandler(
        route=settings.route,
        target=settings.target,
        function=around(middleware, function) if is_async else function,
        is_async=is_async,
        timeout=settings.timeout,
        concurrency=settings.concurrency,
        unwrap=settings.unwrap,
        payload=payload,
        middleware=() if is_async else middleware,
    )


def callable_of(name: str, function: Any) -> tuple[Callable[[Any], Any], bool, PayloadReader | None]:
    """Returns what to call with a task to run the handler `function`, whether to await it, and its payload's reader.

    :raises NoHandler: it is none, or its parameters do not say what they want.
    """
    if inspect.isclass(function):
        raise NoHandler(f"{name} is a class: name a function, or an object that can be called")
    if not callable(function):
        raise NoHandler(f"{name} is a {type(function).__name__}, which cannot be called")
    if _is_method_of_a_class(function):
        raise NoHandler(f"{name} is a method: name it of an object of its class, which a module has as a variable")
    plain = called_function(function)
    if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
        raise NoHandler(f"{name} is a generator (it has a `yield`): a handler returns its result")
    is_async = inspect.iscoroutinefunction(plain)
    if not is_async and inspect.iscoroutinefunction(inspect.unwrap(plain)):
        # a decorator that passes the coroutine through without being `async` itself
        function, is_async = _awaiting(function), True
    try:
        bound, payload = bind(name, function)
    except Unbindable as error:
        raise NoHandler(str(error)) from None
    return bound, is_async, payload


def _find(module: ModuleType, attributes: str) -> Any:
    found: Any = module
    for name in attributes.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            names = [n for n in dir(found) if not n.startswith("_")]
            near = difflib.get_close_matches(name, names, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(names) or 'nothing'}"
            where = getattr(found, "__name__", type(found).__name__)
            file = getattr(module, "__file__", None) or "a directory without __init__.py"
            raise NoHandler(f"{where} ({file}) has no {name!r}; {hint}") from None
        except Exception as error:
            raise NoHandler(f"{module.__name__}: reading {name!r} raised {error!r}") from error
    return found


def _is_method_of_a_class(function: Any) -> bool:
    """Whether it was found through its class, so that `self` would get the task."""
    if not inspect.isfunction(function):
        return False
    holder = function.__qualname__.rpartition(".")[0]
    return (
        bool(holder)
        and not holder.endswith("<locals>")
        and next(iter(inspect.signature(function).parameters), "") == "self"
    )


def _awaiting(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    return call
