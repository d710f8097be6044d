"""Whether another server takes the connection, asked before the present one is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ajhost.adapters.nats.connect_and_log_in import scout
from ajhost.adapters.nats.credentials import servers_of
from ajhost.settings.sections import NatsSettings


@asynccontextmanager
async def _server(info: bytes, heard: list[bytes]) -> AsyncIterator[str]:
    """A server that greets with `info`, lets everybody in, and keeps each line that it hears; its URL."""

    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"INFO %b\r\n" % info)
        while line := await reader.readline():
            heard.append(line)
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
        writer.close()
        ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await ended.wait()


@pytest.mark.parametrize(
    ("info", "accepted", "lines"),
    [(b'{"headers":true}', True, 2), (b'{"headers":true,"ldm":true}', False, 0)],
)
async def test_a_server_that_is_about_to_stop_is_shown_no_credentials(info: bytes, accepted: bool, lines: int) -> None:
    heard: list[bytes] = []
    async with _server(info, heard) as url:
        settings = NatsSettings(servers=(url,))
        (server,) = servers_of(settings)
        found = await scout(settings, server, "worker 0")
        assert (found.server, found.welcome) == (server, accepted)
        assert len(heard) == lines, heard
