"""nats-py logs in: it answers INFO with CONNECT, signs the server's nonce, and waits for the server's PONG.

It does no more than that. A client object serves one log-in, on a transport that is open and encrypted already. None of
its tasks outlives the log-in, so it cannot hang or reconnect later. Source of the interface: nats-py 2.16,
`nats.aio.transport.Transport`, `Client._process_connect_init`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any
from urllib.parse import ParseResult

import nats.errors
from nats.aio.client import Client, RawCredentials
from nats.aio.transport import Transport

from ajhost.adapters.nats.credentials import LogInData
from ajhost.adapters.nats.interfaces import ServerRefused, server_text
from ajhost.adapters.nats.transport import LedgerTransport
from ajhost.protocol.server_info import ServerInfo

_LONG = 3600
"""Seconds, longer than any caller waits: callers have limits of their own."""


async def log_in(transport: LedgerTransport, info: ServerInfo, data: LogInData, name: str) -> None:
    """Logs in with `data` at a server that has sent `info`; returns when the server has accepted.

    :raises ServerRefused: when it does not, with its own text. :raises ConnectionError: when it hangs up.
    """
    client = Client()
    # a private name: nats-py takes a custom transport, but has no parameter for it (nats-py 2.16, client.py)
    client._transport = _LogInTransport(transport, info)
    who: dict[str, Any] = {"user": data.user, "password": data.password, "token": data.token}
    if data.creds is not None:
        who["user_credentials"] = RawCredentials(data.creds.text())
    if data.seed is not None:
        who["nkeys_seed_str"] = data.seed
    try:
        await client.connect(
            servers=["nats://server:4222"],  # names nothing: the transport is connected
            name=name,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            connect_timeout=_LONG,
            ping_interval=_LONG,
            error_cb=_ignore,
            **{key: value for key, value in who.items() if value is not None},
        )
    except nats.errors.Error as error:
        raise ServerRefused(server_text(str(error).removeprefix("nats: "))) from None
    finally:
        with contextlib.suppress(Exception):
            await client.close()


async def _ignore(error: Exception) -> None:
    """What `connect` raises is enough."""


class _LogInTransport(Transport):
    """The client's view of a connection: INFO, which was read already, its own commands, and their answer."""

    def __init__(self, transport: LedgerTransport, info: ServerInfo) -> None:
        self._transport = transport
        self._info: bytes | None = info.line()
        self._over = False

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        """Connected already."""

    async def connect_tls(
        self, uri: str | ParseResult, ssl_context: ssl.SSLContext, buffer_size: int, connect_timeout: int
    ) -> None:
        """Never asked for: INFO as the client sees it says nothing of TLS."""
        raise AssertionError("the transport is sealed already")

    def write(self, payload: bytes) -> None:
        """An operation of the client."""
        if not self._over:
            self._transport.out.command(payload)

    def writelines(self, payload: list[bytes]) -> None:
        """Operations of the client."""
        self.write(b"".join(payload))

    async def drain(self) -> None:
        """Waits until the kernel took what was written."""
        await self._transport.out.drain()

    async def readline(self) -> bytes:
        """INFO, then what the server answers."""
        if self._info is not None:
            line, self._info = self._info, None
            return line
        return await self._transport.read_answer()

    async def read(self, buffer_size: int) -> bytes:
        """Nothing, until the client is closed: what comes after the log-in is not the client's."""
        await asyncio.get_running_loop().create_future()
        return b""

    async def wait_closed(self) -> None:
        """Nothing to wait for."""

    def close(self) -> None:
        """The client is done; the connection stands."""
        self._over = True

    def at_eof(self) -> bool:
        """Whether the client is done."""
        return self._over

    def __bool__(self) -> bool:
        return True  # nats-py replaces a transport that is false before `connect`
