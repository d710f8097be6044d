"""Changed input for a host that serves: honest requesters beside it notice nothing, and no process grows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from ajhost.core.timings import STABLE_AFTER
from scripts.lib.fuzz.mutator import mutated
from tests.support import processes
from tests.support.certificates import self_signed
from tests.support.host import Host
from tests.support.nats import NatsServer
from tests.support.proxy import Direction, Partition
from tests.support.reported_state import listens, subscribed_again, with_pages
from tests.support.router import Router, Verdict, headers_of, subject_of, task_json

_MOST_GROWTH = 60 << 20
"""Bytes by which a process may be larger than after its first minute of this."""
_MOST_FILES = 20
"""Open files by which a process may have more than at the start."""
_BACK = 8.0
"""Seconds in which every worker serves again."""
_HTTP = (
    b"GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    b"GET /readyz HTTP/1.0\r\n\r\n",
    b"POST /status HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
)
_CONTROL = (
    b'{"ask": "cancel", "task": "x", "reason": "because", "terminate": true}\n',
    b'{"ask": "stacks", "task": "x", "slot": 1}\n',
    b'{"ask": "stacks", "slot": 1}\n',
    b'{"ask": "resume"}\n',
    b'{"ask": "nothing", "settings": "/etc/ajhost/ajhost.toml"}\n',
)
_UNFORESEEN = ("Traceback", "not foreseen", "unexpected:", "never retrieved")


class LiveHost:
    """One host, honest load, and those that send it changed input."""

    def __init__(self, directory: Path, rng: random.Random) -> None:
        self._directory, self._rng = directory, rng
        self.sent = 0
        self.failures: list[str] = []

    async def run(self, seconds: float) -> None:
        """For so long."""
        sections = with_pages()
        async with (
            NatsServer(self._directory, monitored=True) as server,
            Partition(server.port) as partition,
            Host(
                self._directory,
                nats=partition.url,
                handlers={"echo": "echo", "thread": "echo_sync"},
                sections=sections,
            ) as host,
            Router(server.url) as router,
        ):
            until = time.monotonic() + seconds * 0.5
            attackers = [
                self._requests(router, until),
                self._raw_requests(server, until),
                self._files(host, until),
                self._connections(listens(sections).rpartition(":"), until),
                self._control(host, until),
                self._view(host, until),
            ]
            sizes = _sizes(host)
            async with router.load("echo", b"honest", rate=50, deadline=20) as load:
                await asyncio.gather(*attackers)
                await asyncio.sleep(0.5)
            report = load.report()
            if len(report.requests) != report.verdicts[Verdict.COMPLETE]:
                self.failures.append(f"honest requests: {report}")
            for pid, (size, files) in _sizes(host).items():
                before = sizes.get(pid, (size, files))
                if size - before[0] > _MOST_GROWTH:
                    self.failures.append(f"process {pid} grew from {before[0] >> 20} to {size >> 20} MiB")
                if files - before[1] > _MOST_FILES:
                    self.failures.append(f"process {pid} has {files} open files, and had {before[1]}")
            await self._mutating_proxy(partition, host, server, router, time.monotonic() + seconds * 0.25)
            await self._ledgers(host, server, router, time.monotonic() + seconds * 0.25)
            self.failures += _unforeseen(host)

    async def _requests(self, router: Router, until: float) -> None:
        """Requests with a changed body, header, or reply subject."""
        rng, inbox = self._rng, router.client.new_inbox()
        bodies = (task_json("echo", b"x"), task_json("thread", b"{}"))
        while time.monotonic() < until:
            for _ in range(20):
                body = mutated(rng, bodies) if rng.random() < 0.7 else bodies[0]
                headers = headers_of(int(time.time()) + 5)
                if rng.random() < 0.4:
                    key = rng.choice(list(headers))
                    changed = mutated(rng, (headers[key].encode(),)).decode("utf-8", "replace")
                    headers[key] = "".join(c for c in changed if c.isprintable())[:1000] or "x"
                with contextlib.suppress(Exception):  # nats-py refuses some headers itself
                    await router.client.publish(
                        subject_of(rng.choice(("echo", "thread"))), body, reply=inbox, headers=headers
                    )
                    self.sent += 1
            await asyncio.sleep(0.1)

    async def _raw_requests(self, server: NatsServer, until: float) -> None:
        """Any bytes as headers, as a reply subject, and as questions to the service: a server passes on what it can."""
        rng = self._rng
        reader, writer = await asyncio.open_connection(server.address, server.port)
        reading = asyncio.create_task(reader.read(-1))
        writer.write(b'CONNECT {"verbose": false, "headers": true}\r\n')
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers_of(int(time.time()) + 60).items())
        block, body = f"NATS/1.0\r\n{lines}\r\n".encode(), task_json("echo", b"x")
        while time.monotonic() < until and not reading.done():
            head = mutated(rng, (block,))
            reply = b"".join(mutated(rng, (b"_INBOX.fuzz.1",)).split())[:1000] or b"x"
            subject = rng.choice((b"CHORIA_AJ.H.T.echo", b"CHORIA_AJ.H.T.thread", b"$SRV.STATS", b"$SRV.INFO.ajhost"))
            writer.write(
                b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject, reply, len(head), len(head) + len(body), head, body)
            )
            self.sent += 1
            await writer.drain()
            await asyncio.sleep(0.02)
        if reading.done():
            self.failures.append(f"the server ended the connection: {reading.result()[-300:]!r}")
        reading.cancel()
        writer.close()

    async def _files(self, host: Host, until: float) -> None:
        """Stray writes into the smaller files of the runtime directory, and somebody who looks at the host then."""
        rng = self._rng
        while time.monotonic() < until:
            name = rng.choice(("state.json", "lock", "stats/*", "attempts/*"))
            for path in host.runtime.glob(name):
                with path.open("r+b", buffering=0) as file:
                    for _ in range(rng.choice((1, 4, 64))):
                        file.seek(rng.randrange(max(path.stat().st_size, 1)))
                        file.write(rng.randbytes(rng.choice((1, 8))))
                        self.sent += 1
            for command in ("status", "attempts", "tasks"):
                seen = await host.command(command)
                if seen.status not in (0, 1, 3) or "Traceback" in str(seen):
                    self.failures.append(f"after {name}: {seen}")
            await asyncio.sleep(1)

    async def _connections(self, listen: tuple[str, str, str], until: float) -> None:
        """Changed HTTP."""
        await self._pour(lambda: asyncio.open_connection(listen[0], int(listen[2])), _HTTP, until)

    async def _control(self, host: Host, until: float) -> None:
        """Changed words at the control socket."""
        path = str(host.runtime / "control")
        await self._pour(lambda: asyncio.open_unix_connection(path), _CONTROL, until)

    async def _view(self, host: Host, until: float) -> None:
        """Anything at the socket of those who may look, some of whom do not read."""
        path = str(host.runtime / "view")
        await self._pour(lambda: asyncio.open_unix_connection(path), (b"GET / HTTP/1.1\r\n\r\n",), until)

    async def _pour(
        self,
        connect: Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]],
        samples: tuple[bytes, ...],
        until: float,
    ) -> None:
        while time.monotonic() < until:
            data = mutated(self._rng, samples)
            if b"reload" in data:
                continue
            reader, writer = await connect()
            with contextlib.suppress(OSError):
                writer.write(data)
                await writer.drain()
                writer.write_eof()
                async with asyncio.timeout(1):
                    await reader.read()
            writer.transport.abort()
            self.sent += 1
            await asyncio.sleep(0.05)

    async def run_sealed(self, seconds: float) -> None:
        """A host over TLS, whose bytes are changed on their way, for so long."""
        certificate, key = self_signed(self._directory)
        config = f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}'
        async with (
            NatsServer(self._directory, config=config, monitored=True) as server,
            Partition(server.port) as partition,
            Host(
                self._directory,
                nats=partition.url.replace("nats://", "tls://"),
                sections=with_pages() | {"nats.tls": {"ca": str(certificate)}},
            ) as host,
            Router(server.url, tls=ssl.create_default_context(cafile=certificate)) as router,
        ):
            await self._mutating_proxy(partition, host, server, router, time.monotonic() + seconds)
            self.failures += _unforeseen(host)

    async def _mutating_proxy(
        self, partition: Partition, host: Host, server: NatsServer, router: Router, until: float
    ) -> None:
        """What the server sends is changed on its way; afterwards every worker is back and everything answered."""
        rng = self._rng

        def change(direction: Direction, piece: bytes) -> bytes:
            if direction is Direction.TO_SERVER or rng.random() < 0.5:
                return piece
            self.sent += 1
            return mutated(rng, (piece,)) or b"\n"

        while time.monotonic() < until and not self.failures:
            partition.change = change
            await partition.cut()
            await asyncio.sleep(rng.uniform(0.2, 2.0))
            partition.heal()
            await partition.cut()
            await asyncio.sleep(0.3)  # until the server has noticed: what it gives to a dead connection is lost
            await self._serves("a mutating proxy", host, server, router)

    async def _ledgers(self, host: Host, server: NatsServer, router: Router, until: float) -> None:
        """Some bytes of a worker's ledger are changed, and the worker dies."""
        rng = self._rng
        while time.monotonic() < until and not self.failures:
            workers = list(host.workers().values())
            rng.shuffle(workers)
            await asyncio.sleep(STABLE_AFTER)  # one that dies sooner is replaced later
            others = {ledger for pid in workers[1:] for ledger in _ledgers_of(pid)}
            for ledger in _ledgers_of(workers[0]) - others:  # its own: the supervisor's is everybody's
                with ledger.open("r+b", buffering=0) as file:
                    for _ in range(rng.choice((1, 1, 4, 64))):
                        file.seek(rng.randrange(min(ledger.stat().st_size, 1 << 16)))
                        file.write(rng.randbytes(rng.choice((1, 8))))
                        self.sent += 1
            processes.send(workers[0], signal.SIGKILL)
            await processes.gone(workers[0])
            # until the server has noticed: what it gives to that connection is lost if the positions were changed
            await asyncio.sleep(0.3)
            await self._serves("a changed ledger", host, server, router)

    async def _serves(self, after: str, host: Host, server: NatsServer, router: Router) -> None:
        """Every worker is back, and an honest request is answered."""
        try:
            end = time.monotonic() + _BACK
            while (reply := await router.request("echo", b"honest", deadline=10)).body != b"honest":
                # the server may not have noticed yet that a connection ended, and then there is nobody for a moment
                assert reply.verdict is Verdict.NO_RESPONDERS, reply
                assert time.monotonic() < end, f"nobody serves after {_BACK} s"
                await asyncio.sleep(0.05)
            await subscribed_again(server, 2, _BACK)
        except AssertionError as error:
            lines = "\n".join(line.text for line in host.output.lines[-30:])
            self.failures.append(f"after {after}: {error}\n{lines}")


def _unforeseen(host: Host) -> list[str]:
    """The first lines of the host's log that tell of what nobody foresaw, each with what surrounds it."""
    lines = [line.text for line in host.output.lines]
    found = [n for n, line in enumerate(lines) if any(word in line for word in _UNFORESEEN)]
    return ["\n".join(lines[max(n - 3, 0) : n + 25]) for n in found[:2]]


def _ledgers_of(pid: int) -> set[Path]:
    """The ledgers that a process has mapped."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    found = {Path(line.split(maxsplit=5)[5]) for line in lines if line.endswith(".ledger")}
    return {path for path in found if path.exists()}


def _sizes(host: Host) -> dict[int, tuple[int, int]]:
    """Resident bytes and open files of each process."""
    sizes = {}
    for process in host.all_processes():
        with contextlib.suppress(OSError):
            resident = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * 4096
            sizes[process.pid] = resident, len(os.listdir(f"/proc/{process.pid}/fd"))
    return sizes
