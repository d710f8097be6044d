"""Permits that all processes of a host share (`host_concurrency`): a limited number, none lost when its holder dies.

Each permit is a record lock (fcntl(2)) on one byte of a file. The kernel releases it when its process ends in any way,
and a child that a handler forks does not have it. A process must open the file only once, since closing any descriptor
of it releases all its locks.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path

_PER_NAME = 1 << 20
"""Bytes of the file for one name: more than any limit in the settings. Locks may lie beyond the end of a file."""
_NAMES = 1 << 32


class PermitFile:
    """The file, opened once by this process."""

    def __init__(self, path: Path) -> None:
        """:raises OSError: it cannot be made or opened."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def of(self, name: str, count: int) -> Permits:
        """Returns the `count` permits that have that name in every process."""
        digest = hashlib.blake2b(name.encode(), digest_size=4).digest()
        return Permits(self._descriptor, int.from_bytes(digest, "big") % _NAMES * _PER_NAME, count)


class Permits:
    """The permits of one name. For one thread only."""

    __slots__ = ("_at", "_count", "_descriptor", "_held")

    def __init__(self, descriptor: int, at: int, count: int) -> None:
        self._descriptor, self._at, self._count = descriptor, at, count
        self._held: set[int] = set()

    def take(self) -> bool:
        """Takes a permit if one is free, and returns whether it did."""
        for number in range(self._count):
            if number not in self._held:  # record locks do not exclude the process that holds them
                try:
                    fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._at + number)
                except OSError:  # another process has it
                    continue
                self._held.add(number)
                return True
        return False

    def give(self) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, self._at + self._held.pop())
