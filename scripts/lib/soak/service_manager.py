"""The host as a service manager runs it: readiness, a store for descriptors, a restart that hands them back.

What systemd does for a unit with `Type=notify`, `FileDescriptorStoreMax=` and `Restart=always`; sd_notify(3),
sd_listen_fds(3).
"""

from __future__ import annotations

import array
import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.lib.soak.handlers import RECORD
from tests.support import processes
from tests.support.host import ROOT, settings_text
from tests.support.processes import ProcessInfo
from tests.support.program import CommandResult, run

_WORKER = re.compile(r"^ajhost: worker (\d+)")
_LISTEN_FIRST = 3
_LAUNCH = """
import fcntl, os, sys
given = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 200) for fd in filter(None, sys.argv[1].split(","))]
for place, fd in enumerate(given, 3):
    os.dup2(fd, place, inheritable=True)
    os.close(fd)
if given:
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(given)), LISTEN_FDNAMES=sys.argv[2])
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Puts the stored descriptors where sd_listen_fds(3) looks for them, under the id of the process that it becomes."""


class Store:
    """The manager's end of `$NOTIFY_SOCKET`: whether it is ready, and the descriptors it wants kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ready = asyncio.Event()
        self.status = ""
        self.kept: dict[str, list[int]] = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._receive)

    def _receive(self) -> None:
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(65536, 4096, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            handed = array.array("i")
            for _, kind, value in ancillary:
                if kind == socket.SCM_RIGHTS:
                    handed.frombytes(value[: len(value) - len(value) % handed.itemsize])
            self._obey(dict(line.partition("=")[::2] for line in data.decode().splitlines()), list(handed))

    def _obey(self, said: Mapping[str, str], handed: list[int]) -> None:
        name = said.get("FDNAME", "")
        self.status = said.get("STATUS", self.status)
        if said.get("READY") == "1":
            self.ready.set()
        if said.get("FDSTORE") == "1":
            self.kept.setdefault(name, []).extend(handed)
            return
        if said.get("FDSTOREREMOVE") == "1":
            handed += self.kept.pop(name, [])
        for fd in handed:
            os.close(fd)

    def close(self) -> None:
        """Gives everything up."""
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()
        for fds in self.kept.values():
            for fd in fds:
                os.close(fd)
        self.kept.clear()
        self.path.unlink(missing_ok=True)


class Service:
    """One host over all its starts. Its log, all processes' output, goes to one file."""

    def __init__(self, directory: Path, runtime: Path) -> None:
        self.directory = directory
        self.runtime = runtime
        self.application = directory / "app"
        self.application.mkdir()
        self.file = directory / "ajhost.toml"
        self.log_file = directory / "host.log"
        self.secret = directory / "password"
        self.record = directory / "runs"
        self.record.touch()
        self.log_file.touch()
        self.store = Store(directory / "notify")
        self._process: asyncio.subprocess.Process | None = None

    # its files

    def write_module(self, source: str) -> None:
        """The handlers' module, `soak_app`."""
        new = self.application / "soak_app.new"
        new.write_text(source)
        new.replace(self.application / "soak_app.py")

    def write_settings(self, sections: Mapping[str, Mapping[str, Any]] | str) -> None:
        """The settings file: sections, or any text, valid or not."""
        new = self.file.with_suffix(".new")
        new.write_text(sections if isinstance(sections, str) else settings_text(sections))
        new.chmod(0o600)
        new.replace(self.file)

    # running it

    @property
    def environment(self) -> dict[str, str]:
        """What its processes are started with."""
        path = os.pathsep.join(filter(None, (str(ROOT / "daemon"), os.environ.get("PYTHONPATH"))))
        return {
            **os.environ,
            "PYTHONPATH": path,
            "NOTIFY_SOCKET": str(self.store.path),
            RECORD: str(self.record),
        }

    async def start(self, timeout: float = 40.0) -> None:
        """Starts it with what is in the store, and returns when it is ready. Raises TimeoutError, RuntimeError."""
        self.store.ready.clear()
        kept = [(name, fd) for name, fds in self.store.kept.items() for fd in fds]
        self.store.kept.clear()
        command = (sys.executable, "-m", "ajhost", "run", "-c", str(self.file))
        with self.log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-c", _LAUNCH),
                ",".join(str(fd) for _, fd in kept),
                ":".join(name for name, _ in kept),
                *command,
                cwd=self.directory,
                env=self.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[fd for _, fd in kept],
            )
        for name, fd in kept:  # it stays in the store until the service says otherwise
            self.store.kept.setdefault(name, []).append(fd)
        ready = asyncio.create_task(self.store.ready.wait())
        ended = asyncio.create_task(self._process.wait())
        try:
            async with asyncio.timeout(timeout):
                await asyncio.wait((ready, ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
            ended.cancel()
            await asyncio.gather(ready, ended, return_exceptions=True)
        if not self.store.ready.is_set():
            raise RuntimeError(f"the host ended with {self._process.returncode} before it was ready")

    @property
    def pid(self) -> int:
        """The supervisor."""
        assert self._process is not None
        return self._process.pid

    @property
    def ended(self) -> int | None:
        """The status with which the supervisor ended, None while it runs."""
        return None if self._process is None else self._process.returncode

    async def wait(self, timeout: float) -> int:
        """The supervisor's exit status. Raises TimeoutError."""
        assert self._process is not None
        async with asyncio.timeout(timeout):
            return await self._process.wait()

    async def command(self, *arguments: str, timeout: float = 90.0) -> CommandResult:
        """Runs `ajhost ARGUMENTS -c FILE`."""
        program = (sys.executable, "-m", "ajhost", *arguments, "-c", str(self.file))
        return await run(*program, env=self.environment, timeout=timeout)

    # its processes

    def send(self, number: signal.Signals) -> None:
        """A signal to the supervisor."""
        processes.send(self.pid, number)

    def workers(self) -> list[int]:
        """The workers' processes, those that leave included."""
        return [child.pid for child in processes.children(self.pid) if _WORKER.match(child.title)]

    def templates(self) -> list[int]:
        """The templates' processes, youngest last."""
        return [child.pid for child in processes.children(self.pid) if child.title.startswith("ajhost: template")]

    def all_processes(self) -> list[ProcessInfo]:
        """Everything that descends from it."""
        return processes.with_working_directory(self.directory)

    def kill_all(self) -> None:
        """SIGKILL to everything that descends from it, the supervisor first, as systemd ends a unit's processes."""
        self.send(signal.SIGKILL)
        while left := self.all_processes():
            for process in left:
                processes.send(process.pid, signal.SIGKILL)
