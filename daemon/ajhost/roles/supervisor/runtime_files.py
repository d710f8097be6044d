"""Makes the supervisor's files in the runtime directory, and makes them again when they were removed. Has a worker
replaced whose ledger was removed, and a ledger's header restored that a stray write has changed (one that was cut
short: `running_phase.py`).

A cleaner of temporary files, or a person, may remove them while the host runs. What a process has mapped stays, but no
process can open it by its path: no worker could be replaced or read what it dequeued, and a second host could start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ajhost.adapters.linux import ledger_file, runtime_directory
from ajhost.adapters.logs.host_failures_log import HostFailuresLog
from ajhost.core.timings import RUNTIME_FILES_INTERVAL
from ajhost.ledger.layout import SUPERVISOR_SLOT
from ajhost.roles.supervisor import control_socket, state_file
from ajhost.roles.supervisor.control_socket import Actions

if TYPE_CHECKING:
    from ajhost.roles.supervisor.supervisor import Supervisor

_log = logging.getLogger("ajhost.supervisor")


class RuntimeFiles:
    """The files. `descriptor` is the directory's, and holds its lock once that was taken."""

    def __init__(self, directory: Path, descriptor: int) -> None:
        self._directory, self._descriptors = directory, [descriptor]
        self._sockets: dict[str, Callable[[], Awaitable[asyncio.Server]]] = {}
        self._servers: dict[str, asyncio.Server] = {}
        self._throttled = HostFailuresLog(_log)

    def make(self) -> None:
        """Makes what a start needs: the ledgers' directory, and the lock file with the supervisor's pid."""
        runtime_directory.put_aside(self._directory / "ledger", stat.S_ISDIR)
        for name in (runtime_directory.LOCK, state_file.NAME):
            runtime_directory.put_aside(self._directory / name, stat.S_ISREG)
        (self._directory / "ledger").mkdir(mode=0o700, exist_ok=True)
        runtime_directory.write_file(self._directory, runtime_directory.LOCK, f"{os.getpid()}\n".encode())

    async def listen(self, settings: Path, actions: Actions, status: Callable[[], bytes]) -> None:
        """Opens the sockets `control`, for `actions`, and `view`, for the `status`."""
        self._sockets = {
            runtime_directory.CONTROL: lambda: control_socket.serve(self._directory, settings, actions),
            runtime_directory.VIEW: lambda: control_socket.serve_view(self._directory, status),
        }
        for name in self._sockets:
            await self._open(name)

    async def _open(self, name: str) -> None:
        if (before := self._servers.pop(name, None)) is not None:
            before.close()
        runtime_directory.put_aside(self._directory / name, stat.S_ISSOCK)
        self._servers[name] = await self._sockets[name]()

    async def keep(self, host: Supervisor) -> None:
        """Checks the files every `RUNTIME_FILES_INTERVAL` seconds, until it is cancelled."""
        while True:
            await asyncio.sleep(RUNTIME_FILES_INTERVAL)
            try:
                await self._look(host)
            except Exception as error:
                why = "commands do not reach this host until it is restarted, by systemctl restart or as it was started"
                self._say("the files in the runtime directory cannot be made again: %s: %s", error, why)

    async def _look(self, host: Supervisor) -> None:
        self._restore_headers(host)
        lost: list[str] = []
        if not runtime_directory.is_same(self._directory, self._descriptors[-1]):
            if not self._lock_new_directory():
                return
            lost.append("the directory itself")
        ledgers = self._directory / "ledger"
        missing = [
            runtime_directory.put_aside(ledgers, stat.S_ISDIR),
            runtime_directory.put_aside(self._directory / runtime_directory.LOCK, stat.S_ISREG),
        ]
        if lost or any(missing):
            lost.append(runtime_directory.LOCK)
            self.make()
        runtime_directory.put_aside(self._directory / state_file.NAME, stat.S_ISREG)
        if (written := host.written_state) is None or written != state_file.which(self._directory):
            if written is not None:
                lost.append(state_file.NAME)
            host.write_state()
        for name in self._sockets:
            if runtime_directory.put_aside(self._directory / name, stat.S_ISSOCK):
                lost.append(name)
                await self._open(name)
        present = ledger_file.serials(ledgers)
        if (replaced := host.recycle_without_ledger()) or lost:
            self._say(
                "somebody has removed or changed files in %s (%s): they are made again; workers whose ledgers are gone "
                "and that are replaced: %s",
                self._directory,
                ", ".join(lost) or "ledgers",
                ", ".join(map(str, replaced)) or "none",
            )
        # the supervisor's ledger is made once a server is reached
        if host.serial not in present and any(ledger.slot == SUPERVISOR_SLOT for ledger in host.ledgers()):
            self._say(
                "the host's own ledger was removed from %s: what it holds is lost should it be killed. Restart it",
                ledgers,
            )

    def _restore_headers(self, host: Supervisor) -> None:
        if damaged := [ledger.slot for ledger in host.ledgers() if ledger.restore_header()]:
            slots = ("the host's" if slot == SUPERVISOR_SLOT else f"slot {slot}'s" for slot in damaged)
            text = "a stray write has changed the header of a ledger (%s): it is put back"
            self._say(text, ", ".join(slots))

    def _lock_new_directory(self) -> bool:
        """Makes the removed directory anew and locks it. Returns False if another host has taken its place."""
        descriptor = runtime_directory.prepare(self._directory)
        if not runtime_directory.lock(descriptor):
            os.close(descriptor)
            text = "another host has taken %s, which somebody had removed: stop one of the two"
            self._say(text, self._directory)
            return False
        self._descriptors.append(descriptor)
        return True

    def _say(self, text: str, *arguments: object) -> None:
        self._throttled.tell(logging.ERROR, text, text, *arguments)

    def close_sockets(self) -> None:
        for name, server in self._servers.items():
            server.close()
            with contextlib.suppress(OSError):
                (self._directory / name).unlink()

    def close(self) -> None:
        """Gives up the lock."""
        for descriptor in self._descriptors:
            os.close(descriptor)
