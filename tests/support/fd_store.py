"""A service manager that keeps descriptors: systemd's FD store, for a host that is killed and started again."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.host import Host, Process, Section
from tests.support.notify_socket import Notification, NotifySocket

_FIRST = 3
"""Where inherited descriptors begin (sd_listen_fds(3))."""
_PARKED = 512
"""From here on they are handed to the launcher, out of the way of the numbers that they are to have."""
_LAUNCHER = f"""
import os, sys
count, names = int(sys.argv[1]), sys.argv[2]
for number in range(count):
    os.dup2(int(sys.argv[3 + number]), {_FIRST} + number)
    os.close(int(sys.argv[3 + number]))
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(count), LISTEN_FDNAMES=names)
os.execv(sys.argv[3 + count], sys.argv[3 + count:])
"""


class FdStore:
    """What is kept, by name: several descriptors may bear the same one."""

    def __init__(self) -> None:
        self._kept: dict[str, list[int]] = {}

    @property
    def items(self) -> list[tuple[str, int]]:
        """Name and descriptor of each, a name's oldest first."""
        return [(name, descriptor) for name, kept in self._kept.items() for descriptor in kept]

    @property
    def names(self) -> list[str]:
        """The name of each."""
        return [name for name, _ in self.items]

    def obey(self, notification: Notification, handed: list[int]) -> None:
        """Does what a message says: FDSTORE, FDSTOREREMOVE, FDNAME. Other descriptors are closed."""
        name = notification.fields.get("FDNAME", "stored")
        if "FDSTORE" in notification.fields:
            self._kept.setdefault(name, []).extend(handed)
            return
        for descriptor in handed:
            os.close(descriptor)
        if "FDSTOREREMOVE" in notification.fields:
            for descriptor in self._kept.pop(name, []):
                os.close(descriptor)

    def clear(self) -> None:
        """Closes all of them, as after an ordinary stop of the unit."""
        for _, descriptor in self.items:
            os.close(descriptor)
        self._kept.clear()


class StoringSocket(NotifySocket):
    """A notify socket with a store behind it. What was sent before `close` is obeyed, as systemd does."""

    def __init__(self, path: Path, store: FdStore) -> None:
        self._store = store
        super().__init__(path)

    def _keep(self, notification: Notification, handed: list[int]) -> None:
        self._store.obey(notification, handed)

    def close(self) -> None:
        """Takes what is on its way, then stops listening."""
        self._receive()
        super().close()


class KeptHost(Host):
    """A host under such a manager: its next start gets the descriptors that were kept."""

    def __init__(
        self,
        directory: Path,
        *,
        nats: str | Sequence[str],
        handlers: Mapping[str, str | Section] | None = None,
        sections: Mapping[str, Section] | None = None,
    ) -> None:
        super().__init__(directory, nats=nats, handlers=handlers, sections=sections)
        self.store = FdStore()

    def _listen(self, path: Path) -> NotifySocket:
        return StoringSocket(path, self.store)

    async def _execute(
        self, output: int, notify: str, launcher: Sequence[str] = (), pass_fds: Sequence[int] = ()
    ) -> Process:
        kept = self.store.items
        parked = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _PARKED) for _, descriptor in kept]
        names = ":".join(name for name, _ in kept)
        placing = (sys.executable, "-I", "-S", "-c", _LAUNCHER, str(len(kept)), names, *map(str, parked))
        try:
            return await super()._execute(output, notify, placing if kept else (), parked)
        finally:
            for descriptor in parked:
                os.close(descriptor)

    async def destroy(self) -> None:
        """As any host's, and the store is emptied."""
        await super().destroy()
        self.store.clear()
