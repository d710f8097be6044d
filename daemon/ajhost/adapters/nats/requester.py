"""Short connections: of a start, which waits for a server to ask for its limit, and of `ajhost call`, to send requests
and await each one's first reply.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Self

from ajhost.adapters.nats.connect_and_log_in import private_ledger
from ajhost.adapters.nats.connection import Connection, addresses
from ajhost.adapters.nats.interfaces import Sink
from ajhost.core.login_gate import WORDS, LoginGate
from ajhost.core.server_restart import RestartWindow
from ajhost.core.timings import CALL_CONNECT_LIMIT
from ajhost.protocol.frames import Message
from ajhost.protocol.server_info import MOST_MAX_PAYLOAD
from ajhost.settings.sections import NatsSettings

_STATUS_NO_RESPONDERS = "503"


class ConnectFailed(Exception):
    """No server could be reached or accepted the log-in; the text names the address and the reason."""


class NoResponders(Exception):
    """No client is subscribed to the subject."""


class PayloadTooLarge(Exception):
    """The server takes no message of this size."""


class Reply(NamedTuple):
    headers: Mapping[str, str]
    body: bytes


async def discover(settings: NatsSettings, on_waiting: Callable[[str], None]) -> int:
    """Returns the bytes of the largest request that the server may hand over.

    Waits for a server without limit, logs that now and then, and calls `on_waiting` with each new reason.
    """
    connection = _connection(settings, Sink(), "ajhost start")
    connecting, told = asyncio.ensure_future(connection.connect()), ""
    try:
        while not connecting.done():
            await _change(connection, connecting)
            if not connecting.done() and connection.why_not not in ("", told):
                told = connection.why_not
                on_waiting(told)
        connecting.result()
        return connection.largest_request
    finally:
        connecting.cancel()
        await connection.close()


class Requester:
    """A connection on which requests are sent, and each one's first reply is awaited.

    :raises ConnectFailed: on entry, when no server accepts the log-in.
    """

    def __init__(self, settings: NatsSettings) -> None:
        self._settings = settings
        self._inbox = f"{settings.inbox_prefix}.{secrets.token_hex(16)}"
        self._replies = _Replies()
        frame = MOST_MAX_PAYLOAD + (1 << 17)
        self._connection = _connection(settings, self._replies, "ajhost call", quiet=True, frame=frame)
        self._sent = 0

    async def __aenter__(self) -> Self:
        try:
            await _connected(self._connection, f"{self._inbox}.*", self._settings)
        except BaseException:
            await self._connection.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()

    async def ask(self, subject: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Reply:
        """Sends one request and waits for its reply.

        :raises NoResponders: no client serves the subject. :raises TimeoutError: no answer within `timeout` seconds.
        :raises PayloadTooLarge: nothing was sent.
        """
        self._sent += 1
        inbox = f"{self._inbox}.{self._sent}"
        data = _publication(subject, inbox, headers, body)
        limit = self._connection.max_payload
        if len(data) > limit + len(subject) + 256:
            raise PayloadTooLarge(f"{len(data)} bytes are more than the server's maximum payload of {limit}")
        with self._replies.awaited(inbox) as awaited:
            self._connection.transport.out.command(data)
            async with asyncio.timeout(timeout):
                status, reply = await awaited
        if status == _STATUS_NO_RESPONDERS:
            raise NoResponders(subject)
        return reply


def _connection(
    settings: NatsSettings, sink: Sink, name: str, *, quiet: bool = False, frame: int = 1 << 20
) -> Connection:
    ledger = private_ledger(frame)
    return Connection(settings, ledger, RestartWindow(ledger), LoginGate([0] * WORDS), sink, name, quiet=quiet)


async def _change(connection: Connection, connecting: asyncio.Future[None]) -> None:
    """Waits for a change of the connection's status, or for the end of `connecting`."""
    changed = asyncio.ensure_future(connection.changed())
    await asyncio.wait({connecting, changed}, return_when=asyncio.FIRST_COMPLETED)
    changed.cancel()


async def _connected(connection: Connection, inbox: str, settings: NatsSettings) -> None:
    """Connects and subscribes to the inbox, in as many attempts as there are configured servers."""
    connecting = asyncio.ensure_future(connection.connect([inbox]))
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CALL_CONNECT_LIMIT):
                while not connecting.done() and connection.failed_attempts < len(settings.servers):
                    await _change(connection, connecting)
    finally:
        connecting.cancel()
    if not connection.up.is_set():
        where = addresses(settings)
        why = connection.why_not.removeprefix(f"{where}: ") or "no connection in time"
        raise ConnectFailed(f"NATS at {where}: {why}")


class _Replies(Sink):
    def __init__(self) -> None:
        self._awaited: dict[bytes, asyncio.Future[tuple[str, Reply]]] = {}

    @contextlib.contextmanager
    def awaited(self, inbox: str) -> Iterator[asyncio.Future[tuple[str, Reply]]]:
        """Yields a future of the first reply to an inbox."""
        future: asyncio.Future[tuple[str, Reply]] = asyncio.get_running_loop().create_future()
        self._awaited[inbox.encode()] = future
        try:
            yield future
        finally:
            del self._awaited[inbox.encode()]

    def message_without_reply(self, data: bytes, message: Message) -> None:
        """`Sink`: resolves the future of a reply. Drops one that is not awaited, such as a second one."""
        _, header, body, end, subject, _ = message
        future = self._awaited.get(bytes(subject))
        if future is not None and not future.done():
            status, headers = _headers(data[header:body])
            future.set_result((status, Reply(headers, data[body : end - 2])))


def _headers(block: bytes) -> tuple[str, dict[str, str]]:
    """Returns the status and the headers of a message; of a repeated header the first value."""
    first, _, rest = block.partition(b"\r\n")
    headers: dict[str, str] = {}
    for line in rest.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon:
            headers.setdefault(name.decode("utf-8", "replace").strip(), value.decode("utf-8", "replace").strip())
    return first.partition(b" ")[2].decode("ascii", "replace")[:3], headers


def _publication(subject: str, inbox: str, headers: Mapping[str, str], body: bytes) -> bytes:
    block = b"NATS/1.0\r\n%b\r\n" % b"".join(f"{k}: {v}\r\n".encode() for k, v in headers.items())
    place = f"{subject} {inbox}".encode()
    return b"HPUB %b %d %d\r\n%b%b\r\n" % (place, len(block), len(block) + len(body), block, body)
