"""A NATS server that does as a test says: false greetings, refusals, silence, injected bytes.

Each connection is a `Session`, played by the script that the server has at that moment. Scripts are coroutines; those
that tests share stand at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

_LIMIT = 64 << 20
_MESSAGES = (b"PUB", b"HPUB")


@dataclass(frozen=True, slots=True)
class LogIn:
    """A CONNECT: when it came (monotonic seconds), what it said, and whether it came over TLS."""

    at: float
    options: dict[str, Any]
    sealed: bool


@dataclass(slots=True)
class Published:
    """What a client published: subject, headers and body as they came."""

    subject: str
    data: bytes


@dataclass(slots=True)
class Session:
    """One client's connection, as scripts play it."""

    server: FakeNats
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    name: str = ""
    sealed: bool = False
    subscriptions: dict[str, str] = field(default_factory=dict)
    """sid -> subject."""

    async def send(self, data: bytes) -> None:
        """Sends exactly this."""
        self.writer.write(data)
        await self.writer.drain()

    async def greet(self, **info: Any) -> None:
        """INFO, whose fields may be replaced, or removed by None."""
        await self.send(self.server.info(**info))

    async def line(self) -> bytes:
        """The next line. Raises ConnectionError at the end."""
        line = await self.reader.readline()
        self.server.received += line
        if not line.endswith(b"\n"):
            raise ConnectionResetError("the client has gone")
        return line.rstrip(b"\r\n")

    async def log_in(self) -> dict[str, Any]:
        """Reads up to CONNECT and notes it."""
        while not (line := await self.line()).upper().startswith(b"CONNECT"):
            if line.upper() == b"PING":
                await self.send(b"PONG\r\n")
        options: dict[str, Any] = json.loads(line[len(b"CONNECT ") :])
        self.name = str(options.get("name", ""))
        self.server.log_ins.append(LogIn(time.monotonic(), options, self.sealed))
        return options

    async def seal(self, context: ssl.SSLContext) -> None:
        """The server's side of a TLS handshake."""
        await self.writer.start_tls(context)
        self.sealed = True

    async def serve(self) -> None:
        """PONGs, subscriptions and messages, until the client goes."""
        while True:
            words = (await self.line()).split()
            if not words:
                continue
            match words[0].upper():
                case b"PING":
                    await self.send(b"PONG\r\n")
                case b"SUB":
                    self.subscriptions[words[-1].decode()] = words[1].decode()
                case b"UNSUB":
                    self.subscriptions.pop(words[1].decode(), None)
                case word if word in _MESSAGES:
                    data = await self.reader.readexactly(int(words[-1]) + 2)
                    self.server.received += data
                    self.server.published.append(Published(words[1].decode(), data[:-2]))
                case _:
                    pass

    def reset(self) -> None:
        """Ends the connection by RST."""
        sock: socket.socket | None = self.writer.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Reads until the client goes."""
        while data := await self.reader.read(65536):
            self.server.received += data


Script = Callable[[Session], Awaitable[None]]


class FakeNats:
    """Listens on 127.0.0.1 and plays `script`, which may be replaced at any time, to each new connection."""

    def __init__(self, script: Script, *, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self._wanted, self._tls = port, tls
        self._server: asyncio.Server | None = None
        self._playing: set[asyncio.Task[None]] = set()
        self.sessions: list[Session] = []
        """The connections that are open."""
        self.taken: list[float] = []
        """When connections were taken, monotonic seconds."""
        self.log_ins: list[LogIn] = []
        self.published: list[Published] = []
        self.received = bytearray()
        """All that clients have sent over all connections, after decryption."""

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    def info(self, **changes: Any) -> bytes:
        """An INFO line."""
        info: dict[str, Any] = {
            "server_id": "NDFAKE",
            "server_name": "fake",
            "version": "2.11.0",
            "proto": 1,
            "host": "127.0.0.1",
            "port": self.port,
            "headers": True,
            "max_payload": 1 << 20,
            "client_id": len(self.taken),
        } | changes
        kept = {key: value for key, value in info.items() if value is not None}
        return b"INFO " + json.dumps(kept).encode() + b"\r\n"

    def subscribers(self, subject: str) -> list[Session]:
        """The connections that have subscribed to it."""
        return [session for session in self.sessions if subject in session.subscriptions.values()]

    async def request(self, subject: str, body: bytes, headers: dict[str, str], timeout: float = 5.0) -> Published:
        """Hands a request to the first that has subscribed to it, and returns the answer. Raises TimeoutError.

        A connection that ends, as a script of before may end it, takes the request with it: it is handed to the next.
        """
        reply = f"_INBOX.fake.{time.monotonic_ns():x}"
        head = b"NATS/1.0\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items()).encode() + b"\r\n"
        session: Session | None = None
        async with asyncio.timeout(timeout):
            while True:
                for published in self.published:
                    if published.subject == reply:
                        return published
                if session not in self.sessions and (subscribers := self.subscribers(subject)):
                    session = subscribers[0]
                    sid = next(sid for sid, name in session.subscriptions.items() if name == subject)
                    line = f"HMSG {subject} {sid} {reply} {len(head)} {len(head) + len(body)}\r\n"
                    with contextlib.suppress(ConnectionError):
                        await session.send(line.encode() + head + body + b"\r\n")
                await asyncio.sleep(0.01)

    async def subscribed(self, subject: str, count: int, within: float) -> float:
        """Returns when so many connections are subscribed to it: the seconds that took. Raises AssertionError."""
        began = time.monotonic()
        while (found := len(self.subscribers(subject))) < count:
            if time.monotonic() - began > within:
                raise AssertionError(f"{found} of {count} are subscribed after {within} s")
            await asyncio.sleep(0.02)
        return time.monotonic() - began

    async def taken_at_least(self, count: int, timeout: float = 60.0) -> None:
        """Returns when so many connections were ever taken. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while len(self.taken) < count:  # noqa: ASYNC110  # the scripts know nothing of who waits
                await asyncio.sleep(0.02)

    async def _play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._playing.add(task)
        self.taken.append(time.monotonic())
        session = Session(self, reader, writer, sealed=self._tls is not None)
        self.sessions.append(session)
        try:
            await self.script(session)
        except (OSError, EOFError, ValueError, ssl.SSLError, asyncio.CancelledError):
            pass
        finally:
            self.sessions.remove(session)
            self._playing.discard(task)
            writer.transport.abort()

    async def drop(self) -> None:
        """Ends every connection; new ones are taken."""
        for task in (ending := tuple(self._playing)):
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._play, "127.0.0.1", self._wanted, limit=_LIMIT, ssl=self._tls, backlog=256
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self.drop()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._server.wait_closed(), 5)


# scripts


def serves(**info: Any) -> Script:
    """A server that works."""

    async def play(session: Session) -> None:
        await session.greet(**info)
        await session.log_in()
        await session.serve()

    return play


def greets(line: bytes) -> Script:
    """These bytes instead of INFO, and nothing more; the connection stays open."""

    async def play(session: Session) -> None:
        await session.send(line)
        await session.gone()

    return play


def interrupts(data: bytes) -> Script:
    """A server that works until it has a subscription, then says this, and works on."""

    async def play(session: Session) -> None:
        await session.greet()
        await session.log_in()
        serving = asyncio.create_task(session.serve())
        try:
            while not session.subscriptions and not serving.done():  # noqa: ASYNC110  # `serve` tells nobody
                await asyncio.sleep(0.01)
            await session.send(data)
            await serving
        finally:
            serving.cancel()

    return play


def seals(context: ssl.SSLContext, *, before: bytes = b"", **info: Any) -> Script:
    """A server that works over TLS, with bytes of ours between INFO and the handshake."""

    async def play(session: Session) -> None:
        await session.send(session.server.info(tls_required=True, tls_verify=False, **info) + before)
        await session.seal(context)
        await session.log_in()
        await session.serve()

    return play


def refuses(text: str) -> Script:
    """INFO, and `-ERR` for each CONNECT, and the end."""

    async def play(session: Session) -> None:
        await session.greet(auth_required=True)
        await session.log_in()
        await session.send(f"-ERR '{text}'\r\n".encode())
        await asyncio.sleep(0.05)

    return play


async def is_silent(session: Session) -> None:
    """Takes the connection and says nothing."""
    await session.gone()


async def closes(session: Session) -> None:
    """The end at once, by FIN."""
    session.writer.close()


async def resets(session: Session) -> None:
    """The end at once, by RST."""
    session.reset()


async def goes_silent(session: Session) -> None:
    """INFO, and not a word after it."""
    await session.greet()
    await session.gone()


FALSE_SERVERS: dict[str, Script] = {
    "half an object": greets(b"INFO {\r\n"),
    "a list": greets(b"INFO []\r\n"),
    "bad UTF-8": greets(b'INFO {"server_id":"\xff\xfe"}\r\n'),
    "a number": greets(b'INFO {"connect_urls":5}\r\n'),
    "HTTP": greets(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "silence": is_silent,
    "silence after INFO": goes_silent,
    "the end": closes,
    "a reset": resets,
} | {
    text: refuses(text)
    for text in (
        "Authorization Violation",
        "Maximum Connections Exceeded",
        "User Authentication Expired",
        "Stale Connection",
        "what nobody knows",
    )
}
"""Servers that let nobody in, by what they do."""
