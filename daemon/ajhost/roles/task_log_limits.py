"""Limits the records of one reason in the log: by `[log.limits]`, and to one refusal in 30 s by default.

Those that are kept back are counted, and one record reports the count.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import NamedTuple

from ajhost.core.report_throttle import Throttle

_log = logging.getLogger("ajhost.attempts")
_SIGNATURES = ("the task is not signed", "the task's signature")
"""How refusals begin that are about a signature: they are throttled apart from what is malformed."""


class _Kept(NamedTuple):
    """The last record that was kept back."""

    reason: str
    text: str
    is_refusal: bool = False


class LogLimits(logging.Filter):
    """A filter for so many records of a reason in `LOG_REPEAT` seconds, which logs how many others it kept back.

    Records come from threads of handlers too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.most: Mapping[str, int] = {}
        """Records by reason."""
        self._throttle: Throttle[_Kept] = Throttle()
        self._lock = threading.Lock()

    def refusals(self, reason: str, text: str) -> int:
        """Returns for how many refusals a record of this one stands; 0: no record is written now."""
        kind = "signature" if text.partition(": ")[2].startswith(_SIGNATURES) else ""
        return self._count(f"refused {reason} {kind}", _Kept(reason, text, is_refusal=True), self.most.get(reason, 1))

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written. Those of refusals come here after `refusals`."""
        reason, outcome = getattr(record, "aj_reason", ""), getattr(record, "aj_outcome", "")
        most = self.most.get(reason)
        if most is None or outcome not in ("failed", "terminated"):
            return True
        count = self._count(reason, _Kept(reason, record.getMessage()), most)
        if count > 1:
            record.msg, record.args = f"{record.getMessage()} (and {count - 1} more)", ()
            record.aj_count = str(count)
        return count > 0

    def _count(self, key: str, kept: _Kept, most: int) -> int:
        with self._lock:
            return self._throttle.count(key, time.monotonic(), kept, most)

    def tick(self) -> None:
        """Logs how many records were kept back, when that is due."""
        with self._lock:
            kept = self._throttle.due(time.monotonic())
        self._tell(kept)

    def close(self) -> None:
        """Logs at once how many records were kept back."""
        with self._lock:
            kept = self._throttle.rest(time.monotonic())
        self._tell(kept)

    @staticmethod
    def _tell(kept: list[tuple[_Kept, int, float]]) -> None:
        for (reason, text, is_refusal), count, seconds in kept:
            extra = {"aj_reason": reason, "aj_count": str(count)}
            if is_refusal:
                extra["aj_outcome"] = "refused"
            _log.warning(
                "%s %d more in %.0f s, the last: %s", "refused" if is_refusal else f"{reason}:", count, seconds, text,
                extra=extra,
            )  # fmt: skip
