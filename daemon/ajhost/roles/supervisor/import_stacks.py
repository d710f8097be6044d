"""What an import of handlers is doing: the template's stacks, written from C into memory that the supervisor reads.

The template writes them when it is asked to (`STACKS_OF_IMPORTS`), and when its imports have taken too long.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import ajhost
from ajhost.core.timings import POLL_INTERVAL, TEMPLATE_STACKS_LIMIT

_MACHINERY = ("<frozen importlib", f"{Path(ajhost.__file__).resolve().parent}/", "/importlib/__init__.py")
"""What stands in the lines of frames that are nobody's handlers."""
_LONGEST = 16 << 10
_TOO_LONG = "Timeout"
"""How faulthandler begins what it writes by itself (faulthandler.dump_traceback_later)."""


class ImportStacks:
    """The memory, as long as the imports take."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("ajhost-stacks", os.MFD_CLOEXEC)
        """-1: the imports are through."""

    def close(self) -> None:
        """The imports are through."""
        os.close(self.descriptor)
        self.descriptor = -1

    async def written(self) -> str:
        """What a template writes that was asked for its stacks; empty if its imports are through before."""
        end, size = time.monotonic() + TEMPLATE_STACKS_LIMIT, 0
        while time.monotonic() < end:
            await asyncio.sleep(POLL_INTERVAL)
            if self.descriptor < 0:
                return ""
            before, size = size, os.fstat(self.descriptor).st_size
            if 0 < size == before:
                break
        text = self._read()
        if not text.startswith(_TOO_LONG):
            os.ftruncate(self.descriptor, 0)
            os.lseek(self.descriptor, 0, os.SEEK_SET)  # where the template writes too
        return "\n".join(_of_handlers(text))

    def last_words(self, how: str) -> str:
        """Why the process ended in its imports; `how` in one word."""
        stacks = self._read()
        lines = _of_handlers(stacks)
        if stacks.startswith(_TOO_LONG):
            return "\n".join(["an import of the handlers did not end in time; its stacks:", *lines[1:]])
        return "\n".join([f"the import of the handlers ended the process: {how}", *lines])

    def _read(self) -> str:
        data = b"" if self.descriptor < 0 else os.pread(self.descriptor, _LONGEST, 0)
        return data.decode(errors="replace")


def _of_handlers(stacks: str) -> list[str]:
    return [line.rstrip() for line in stacks.splitlines() if not any(part in line for part in _MACHINERY)]
