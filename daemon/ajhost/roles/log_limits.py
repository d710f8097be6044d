"""`[log.limits]`: how many records of one reason are written, and how the others are counted."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

from ajhost.core.throttle import Throttle

_log = logging.getLogger("ajhost.attempts")


class ReasonLimit(logging.Filter):
    """Lets only so many records of a reason through in `LOG_REPEAT` seconds, and tells how many it kept back.

    Refusals are not its business: they are throttled before. Records come from threads of handlers too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.most: Mapping[str, int] = {}
        """Records by reason."""
        self._throttle = Throttle[tuple[str, str]]()
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        reason, outcome = getattr(record, "aj_reason", ""), getattr(record, "aj_outcome", "")
        most = self.most.get(reason)
        if most is None or outcome not in ("failed", "terminated"):
            return True
        with self._lock:
            count = self._throttle.count(reason, time.monotonic(), (reason, record.getMessage()), most)
        if count > 1:
            record.msg, record.args = f"{record.getMessage()} (and {count - 1} more)", ()
            record.aj_count = str(count)
        return count > 0

    def tick(self) -> None:
        """Tells of what was kept back, when it is time to."""
        with self._lock:
            kept = self._throttle.due(time.monotonic())
        self._tell(kept)

    def close(self) -> None:
        """Tells of it at once."""
        with self._lock:
            kept = self._throttle.rest(time.monotonic())
        self._tell(kept)

    @staticmethod
    def _tell(kept: list[tuple[tuple[str, str], int, float]]) -> None:
        for (reason, text), count, seconds in kept:
            _log.warning(
                "%s: %d more in %.0f s, the last: %s", reason, count, seconds, text,
                extra={"aj_reason": reason, "aj_count": str(count)},
            )  # fmt: skip
