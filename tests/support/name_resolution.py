"""Names of a test's own: a host whose /etc/hosts and /etc/resolv.conf are other ones, in a mount namespace."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.host import Host, Process

_MOUNT = 'mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/resolv.conf && shift 2 && exec "$@"'


def can_rename() -> bool:
    """Whether mount namespaces can be made here."""
    return os.geteuid() == 0


class NamedHost(Host):
    """A host that finds names in `hosts` (lines as in hosts(5)), and asks `resolver` for the others.

    `resolver` is an address whose port 53 is asked; by default nobody answers there.
    """

    def __init__(self, directory: Path, *, hosts: str = "", resolver: str = "127.0.0.254", **how: Any) -> None:
        super().__init__(directory, **how)
        self._hosts, self._resolver = self.directory / "hosts", self.directory / "resolv.conf"
        self._hosts.write_text(f"127.0.0.1 localhost\n{hosts}\n")
        self._resolver.write_text(f"nameserver {resolver}\n")

    def rename(self, hosts: str) -> None:
        """From now on other lines of hosts(5) count, for processes that run as well."""
        with self._hosts.open("r+") as file:  # the file that is mounted, and not another one in its place
            file.write(f"127.0.0.1 localhost\n{hosts}\n")
            file.truncate()

    async def _execute(
        self, output: int, notify: str, launcher: Sequence[str] = (), pass_fds: Sequence[int] = ()
    ) -> Process:
        mounting = ("unshare", "--mount", "sh", "-c", _MOUNT, "sh", str(self._hosts), str(self._resolver))
        return await super()._execute(output, notify, (*mounting, *launcher), pass_fds)


class DeadResolver:
    """A DNS server that takes questions and never answers."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.asked = 0

    def _ask(self) -> None:
        self._socket.recv(4096)
        self.asked += 1

    async def __aenter__(self) -> Self:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind((self.address, 53))
        asyncio.get_running_loop().add_reader(self._socket, self._ask)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
