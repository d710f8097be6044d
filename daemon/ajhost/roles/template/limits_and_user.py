"""Finds what imports change of the process itself, and each worker inherits: limits, user, root directory."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator

_MIB = 1 << 20
_LIMITS = {
    resource.RLIMIT_NOFILE: ("RLIMIT_NOFILE", 64),
    resource.RLIMIT_AS: ("RLIMIT_AS", 128 * _MIB),
    resource.RLIMIT_DATA: ("RLIMIT_DATA", 0),
    resource.RLIMIT_FSIZE: ("RLIMIT_FSIZE", 0),
    resource.RLIMIT_NPROC: ("RLIMIT_NPROC", 0),
    resource.RLIMIT_CPU: ("RLIMIT_CPU", 0),
    resource.RLIMIT_STACK: ("RLIMIT_STACK", 0),
}
"""Names, and what any worker needs before its first task (getrlimit(2))."""


class ProcessState:
    """Records the state of the process when it is made, before the imports; `changes` compares with it."""

    def __init__(self) -> None:
        self._limits = _soft_limits()
        self._user = os.geteuid()
        self._root = _root()

    def changes(self) -> Iterator[tuple[str, str, bool]]:
        """Yields what is different now: a name, one sentence, and whether no worker can serve with it."""
        for number, limit in _soft_limits().items():
            before, (name, least) = self._limits[number], _LIMITS[number]
            if limit < before:
                was = "none" if before == float("inf") else f"{before:.0f}"
                text = f"{name} is {limit:.0f}, it was {was} (resource.setrlimit): each worker has it"
                too_little = limit < least
                yield name, f"{text}, and needs {least}" if too_little else text, too_little
        if (user := os.geteuid()) != self._user:
            text = (
                f"the user is {user}, it was {self._user} (os.setuid): a worker may not open the host's files. "
                "Name the user by `user` in [runtime], by --user or in the unit"
            )
            yield "user", text, True
        if _root() != self._root:
            yield (
                "root",
                "the root directory is another (os.chroot): a worker does not find the host's files",
                True,
            )


def _soft_limits() -> dict[int, float]:
    soft = {number: resource.getrlimit(number)[0] for number in _LIMITS}
    return {number: float("inf") if s == resource.RLIM_INFINITY else s for number, s in soft.items()}


def _root() -> tuple[int, int]:
    found = os.stat("/")
    return found.st_dev, found.st_ino
