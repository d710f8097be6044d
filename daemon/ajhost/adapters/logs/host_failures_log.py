"""A log for attempts that fail again and again, to reach NATS for example: each kind of message at once, then every 30
s with a count. Failures of tasks are limited by `roles/attempt_records.py`.
"""

from __future__ import annotations

import logging
import time

from ajhost.core.report_throttle import Throttle
from ajhost.core.timings import LOG_REPEAT

_MOST = 16
"""Kinds that are told apart in `LOG_REPEAT` seconds: servers' errors and routers' subjects may make any number."""
_OTHERS = "others"


class HostFailuresLog:
    """Logs each kind of message at once, and then every `LOG_REPEAT` seconds."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._throttle: Throttle[str] = Throttle()
        self._told: dict[str, float] = {}

    def tell(self, level: int, kind: str, text: str, *arguments: object) -> bool:
        """Logs a message, or counts it if one of its kind was logged a short while ago. Returns whether it logged."""
        now = time.monotonic()
        self._told = {known: at for known, at in self._told.items() if now - at < LOG_REPEAT}
        if kind not in self._told and len(self._told) >= _MOST:
            kind = _OTHERS
        count = self._throttle.count(kind, now)
        if count > 1:
            text, arguments = text + " (%d more times since this was last said)", (*arguments, count - 1)
        if count:
            self._told[kind] = now
            self._logger.log(level, text, *arguments)
        return bool(count)

    def clear(self) -> None:
        """Forgets all kinds after a success, so that the next failure is logged at once."""
        self._throttle, self._told = Throttle(), {}
