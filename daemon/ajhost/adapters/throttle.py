"""A log for what fails at every attempt: the same kind of message is logged once in a while, with a count."""

from __future__ import annotations

import logging
import time

from ajhost.core.timings import LOG_REPEAT

_MOST_KINDS = 100


class ThrottledLog:
    """True if anything was logged since it was cleared."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._told: dict[str, tuple[float, int]] = {}

    def __bool__(self) -> bool:
        return bool(self._told)

    def tell(self, level: int, kind: str, text: str, *arguments: object) -> None:
        """Logs unless something of this kind was logged a short while ago; then it is counted."""
        now = time.monotonic()
        last, count = self._told.get(kind, (-LOG_REPEAT, 0))
        if now - last < LOG_REPEAT:
            self._told[kind] = last, count + 1
            return
        if len(self._told) >= _MOST_KINDS:
            self._told.clear()
        self._told[kind] = now, 0
        if count:
            text, arguments = text + " (%d more times since this was last said)", (*arguments, count)
        self._logger.log(level, text, *arguments)

    def clear(self) -> None:
        """Clears it: all is well again."""
        self._told.clear()
