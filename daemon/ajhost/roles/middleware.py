"""Middleware: what may be one, and its call around every handler, the first of `python.middleware` outermost. It is put
around coroutines by `handlers.py` at the load, around functions in threads by `worker/executor.py` at each start.

async def traced(task, call):
    with tracer.start_as_current_span(task.type):
        return await call(task)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from ajhost.roles.binding import Unfit, called_function, takes

Call = Callable[[Any], Any]
Middleware = Callable[[Any, Call], Any]


def check_middleware(name: str, function: Any) -> Middleware:
    """:raises Unfit: it cannot be awaited around a handler."""
    is_awaited = callable(function) and inspect.iscoroutinefunction(called_function(function))
    if inspect.isclass(function) or not is_awaited or not takes(function, 2):
        short = name.rpartition(":")[2]
        raise Unfit(f"{name} is no middleware, which is `async def {short}(task, call)`")
    found: Middleware = function
    return found


def around(middleware: Sequence[Middleware], call: Call) -> Call:
    """Returns what to call with a task, so that `call` runs within the middleware, the first one outermost."""
    for one in reversed(middleware):
        call = _around(one, call)
    return call


def _around(middleware: Middleware, call: Call) -> Call:
    return lambda task: middleware(task, call)
