"""Routes log records so that each is written, and only once, whatever an application configures: finds whether one of
its handlers writes to stdout or stderr, and keeps the levels of `[log]` and `[log.levels]`.

`logging.config` disables loggers that exist and closes every handler it knows, `basicConfig(force=True)` and
`logging.shutdown` close them too. Code of handlers calls these at import and in the middle of tasks (Django, Alembic).
So the host's loggers and its one handler are out of their reach:

- Records of `ajhost` and `ajhost.*` go to the host's handler, by the levels of `[log]`. Those of an exception, such as
  one that a handler let through, go to the application's hooks in `logging` as well (Sentry's hook on
  `Logger.callHandlers`, a handler that sends mail), unless a hook writes to stdout or stderr.
- Every other record goes to the application's handlers, as without a host, and to the host's as well, unless one of
  the application's writes to stdout or stderr: the record would appear twice.
- The application's levels are its own. The root logger has that of `[log]` until the application sets another.
- `logging.info()` and its siblings call `basicConfig()` where the root logger has no handler. They only need some
  output, which the host's handler provides.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

OWN = "ajhost"
WRITTEN_LEVEL: ContextVar[int | None] = ContextVar("ajhost_written_level", default=None)
"""The level of the record that an application's handlers are writing now, maybe to stderr."""

_original = logging.Logger.callHandlers
_basic_config = logging.basicConfig
_own_levels: dict[str, int] = {}
"""The levels of single loggers of the host, by name: `Logger.level` may be the application's, which may set all."""
_own_filters: dict[str, logging.Filter] = {}
"""The host's own filters, by the names of its loggers."""
_handler: logging.Handler | None = None
_own_level = logging.INFO
_root_level: int | None = None
"""The level that this module has set for the root logger; another value is the application's."""


class HostLogger(logging.Logger):
    """A logger of the host: its output does not depend on levels, filters, factories or handlers of the application."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - its name in logging.Logger
        """Whether `[log]` enables the level; `Logger.level` does not count."""
        return level >= _own_levels.get(self.name, _own_level)

    def makeRecord(  # noqa: N802 - its name in logging.Logger
        self, name: str, level: int, fn: str, lno: int, msg: object, args: Any, exc_info: Any,
        func: str | None = None, extra: Mapping[str, object] | None = None, sinfo: str | None = None,
    ) -> logging.LogRecord:  # fmt: skip
        """Makes the record without the application's factory (`logging.setLogRecordFactory`), which may raise."""
        record = logging.LogRecord(name, level, fn, lno, msg, args, exc_info, func, sinfo)
        record.__dict__.update(extra or {})
        return record

    def handle(self, record: logging.LogRecord) -> None:
        """Passes a record to the host's handler, by the host's filter only; one of an exception also to hooks."""
        own = _own_filters.get(self.name)
        if _handler is None or not (own is None or own.filter(record)):
            return
        _handler.handle(record)
        if record.exc_info and record.levelno >= logging.ERROR:
            with contextlib.suppress(Exception):  # a hook may raise
                self.callHandlers(record)


def install(handler: logging.Handler, level: str, levels: Iterable[tuple[str, str]]) -> None:
    """Makes `handler` the host's. `levels` are those of single loggers, by name."""
    global _handler, _own_level, _root_level
    number = logging.getLevelName(level.upper())
    if not isinstance(number, int):
        raise ValueError(f"unknown level {level.upper()}")
    previous, _handler, _own_level = _handler, handler, number
    # `logging.shutdown` and `logging.config` close every handler in this list
    logging._handlerList[:] = [known for known in logging._handlerList if known() is not handler]  # type: ignore[attr-defined]
    if previous is not None:
        previous.close()
    root = logging.getLogger()
    if _root_level is None or root.level == _root_level:
        if root.level != number:  # `setLevel` writes to every logger, which copies its page in a fork
            root.setLevel(number)
        _root_level = number
    manager = logging.Logger.manager
    if manager.loggerClass is not _new_logger:
        for name, logger in manager.loggerDict.items():
            if isinstance(logger, logging.Logger) and _is_own(name):
                logger.__class__ = HostLogger
        manager.loggerClass = _new_logger  # type: ignore[assignment]
    _own_levels.clear()
    for name, wanted in levels:
        logging.getLogger(name).setLevel(wanted.upper())
        _own_levels[name] = logging.getLogger(name).level
    # otherwise it is `_call_handlers` already, or a hook of the application that calls it
    if logging.Logger.callHandlers is _original:
        logging.Logger.callHandlers = _call_handlers  # type: ignore[method-assign,assignment]
    logging.lastResort = logging.NullHandler()  # the host's handler has written the record already
    logging.basicConfig = _configure


def add_filter(logger: logging.Logger, own: logging.Filter) -> None:
    """Adds a filter to a logger of the host, whether that is a `HostLogger` by now or not."""
    _own_filters[logger.name] = own
    if not isinstance(logger, HostLogger):
        logger.addFilter(own)


def remove_filter(logger: logging.Logger, own: logging.Filter) -> None:
    if _own_filters.get(logger.name) is own:
        del _own_filters[logger.name]
    logger.removeFilter(own)


def current() -> logging.Handler | None:
    return _handler


def _is_own(name: str) -> bool:
    return name == OWN or name.startswith(f"{OWN}.")


def _new_logger(name: str) -> logging.Logger:
    """Makes a logger: a `HostLogger` for a name of the host, else one of the application's class."""
    return HostLogger(name) if _is_own(name) else logging.getLoggerClass()(name)


def _call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
    if isinstance(logger, HostLogger):
        for handler in _handlers_of(logger):
            if record.levelno >= handler.level and not _is_console(handler):
                handler.handle(record)
        return
    if _handler is not None and not any(map(_is_console, _handlers_of(logger))):
        _handler.handle(record)
    token = WRITTEN_LEVEL.set(record.levelno)
    try:
        _original(logger, record)
    finally:
        WRITTEN_LEVEL.reset(token)


def _configure(**options: Any) -> None:
    """Replaces `logging.basicConfig`: without options it does nothing."""
    if options:
        _basic_config(**options)


def _handlers_of(logger: logging.Logger) -> Iterator[logging.Handler]:
    """Yields the application's handlers on the way to the root logger."""
    place: logging.Logger | None = logger
    while place is not None:
        yield from place.handlers
        place = place.parent if place.propagate else None


def _is_console(handler: logging.Handler) -> bool:
    # a handler of rich keeps its stream in a console
    stream = getattr(handler, "stream", None) or getattr(getattr(handler, "console", None), "file", None)
    if stream is None:
        return False
    if stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        return True
    try:
        return stream.fileno() in (1, 2)
    except (OSError, ValueError, AttributeError):
        return False
