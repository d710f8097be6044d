"""The last 200 attempts that did not complete, for the page and `ajhost attempts`: each process of the host writes a
ring, and who asks reads them all.

A ring is a file of the runtime directory that outlives its writer: after a crash it still has the attempts before.
"""

from __future__ import annotations

import contextlib
import logging
import time
from pathlib import Path
from typing import Any

import orjson

from ajhost.adapters.linux import runtime_directory
from ajhost.core import attempt_ring
from ajhost.core.attempt_ring import LONGEST, AttemptRing, RingError
from ajhost.core.untrusted_values import number, text, whole

DIRECTORY = "attempts"
"""Below the runtime directory."""
SHOWN = 200
_LONGEST_TEXT = 240
_LONGEST_NAME = 64
_MOST_TRIES = (1 << 64) - 1
_LATEST = 253_402_214_400
"""Seconds since 1970: the last day of the year 9999 begins, after which no datetime is in every zone."""
_log = logging.getLogger("ajhost.attempts")


class RecentAttempts:
    """The writer's side: one per process. Without a file it records nothing, and tasks go on."""

    def __init__(self, runtime: Path) -> None:
        directory = runtime / DIRECTORY
        self._ring: AttemptRing | None = None
        try:
            memory = runtime_directory.map_file(runtime_directory.take_first(directory), attempt_ring.SIZE)
            try:
                self._ring = AttemptRing(memory)
            except RingError:  # of another version, or scribbled on
                memory[:] = bytes(len(memory))
                self._ring = AttemptRing(memory)
        except OSError as error:
            _log.error("%s: %s: the page will lack what this process answers", directory, error.strerror)

    def add(self, *, id: str, type: str, tries: int, outcome: str, reason: str, text: str) -> None:
        """Records an attempt that did not complete. `outcome`: `failed`, `terminated` or `refused`."""
        if self._ring is None:
            return
        # in JSON a control character takes six bytes, and a damaged ledger has nothing else
        id, type = _within(id[:_LONGEST_NAME], _LONGEST_NAME), _within(type[:_LONGEST_NAME], _LONGEST_NAME)
        names = {"id": id, "type": type, "outcome": outcome, "reason": reason}
        known = {"at": time.time(), "tries": tries, **names}
        room = LONGEST - len(orjson.dumps({**known, "text": ""}))
        self._ring.append(orjson.dumps({**known, "text": _within(text[:_LONGEST_TEXT], room)}))


def _within(text: str, room: int) -> str:
    """Cuts a text to at most `room` bytes of JSON; a lone surrogate, which has no UTF-8, becomes `?`."""
    text = text.encode("utf-8", "replace").decode()
    while text and len(orjson.dumps(text)) - 2 > room:
        text = text[: len(text) * 3 // 4]
    return text


def recent_attempts(runtime: Path) -> list[dict[str, Any]]:
    """Returns the recorded attempts, newest first."""
    found: list[dict[str, Any]] = []
    for content in runtime_directory.contents(runtime / DIRECTORY, attempt_ring.SIZE):
        with contextlib.suppress(RingError):
            for _, written in attempt_ring.read(memoryview(content)):
                with contextlib.suppress(ValueError, TypeError, KeyError):  # scribbled on
                    found.append(_checked(orjson.loads(written)))
    return sorted(found, key=lambda attempt: -attempt["at"])[:SHOWN]


def _checked(attempt: dict[str, Any]) -> dict[str, Any]:
    """Returns what `add` has written. Raises ValueError, TypeError or KeyError for anything else."""
    texts = {name: text(attempt[name]) for name in ("id", "type", "outcome", "reason", "text")}
    return {"at": number(attempt["at"], _LATEST), "tries": whole(attempt["tries"], _MOST_TRIES), **texts}
