"""Reads the stacks of a template that imports handlers. It writes them from C into memory that the supervisor shares:
at a signal, and when its imports have taken too long. Puts into words why the process ended in its imports.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import ajhost
from ajhost.core.timings import POLL_INTERVAL, TEMPLATE_STACKS_LIMIT

_MACHINERY = ("<frozen importlib", f"{Path(ajhost.__file__).resolve().parent}/", "/importlib/__init__.py")
"""Parts of the lines of frames that belong to no handler."""
_LONGEST = 16 << 10
_TOO_LONG = "Timeout"
"""The beginning of what faulthandler writes after a timeout (faulthandler.dump_traceback_later)."""


class ImportStacks:
    """The memory into which a template writes, open while its imports take place."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("ajhost-stacks", os.MFD_CLOEXEC)
        """-1: the imports have ended."""

    def close(self) -> None:
        os.close(self.descriptor)
        self.descriptor = -1

    async def written(self) -> str:
        """Returns what the template writes after the signal; empty if its imports end before."""
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
            os.lseek(self.descriptor, 0, os.SEEK_SET)  # the template shares the file offset
        return "\n".join(_of_handlers(text))

    def last_words(self, how: str) -> str:
        """Says why the process ended in its imports. `how`: its exit status in words."""
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
