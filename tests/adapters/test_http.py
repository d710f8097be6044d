"""The HTTP server beside its host: what many connections at once may cost."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncGenerator

from ajhost.adapters.http import PLAIN_TEXT, Endpoint, HttpServer, Page, PageAccess, Stream
from tests.support.nats import free_port

AT_ONCE = 60
"""Fewer than the backlog, so that all of them are accepted in one turn of the loop."""


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def asked(port: int, what: bytes = b"GET /healthz") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(what + b" HTTP/1.0\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_connections_that_come_all_at_once_are_closed_but_for_some() -> None:
    port = free_port()
    endpoints = {"/healthz": Endpoint(lambda: Page(200, PLAIN_TEXT, b"well\n"))}
    server = await HttpServer.start(f"127.0.0.1:{port}", endpoints, PageAccess())
    clients: list[socket.socket] = []
    before = descriptors()
    try:
        for _ in range(10):
            for _ in range(AT_ONCE):
                client = socket.socket()
                client.setblocking(False)
                client.connect_ex(("127.0.0.1", port))
                clients.append(client)
            assert (await asked(port)).endswith(b"\r\n\r\nwell\n")
        assert descriptors() - before - len(clients) <= 2 * AT_ONCE
    finally:
        for client in clients:
            client.close()
        server.close()


async def test_nothing_behind_a_request_with_a_body_is_taken_for_another_request() -> None:
    port = free_port()
    asked_for: list[str] = []

    def answer() -> Page:
        asked_for.append("page")
        return Page(200, PLAIN_TEXT, b"well\n")

    server = await HttpServer.start(f"127.0.0.1:{port}", {"/page": Endpoint(answer)}, PageAccess())
    smuggled = b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n"
    heads = (
        b"POST /no HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        b"GET /no HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
        b"GET /no HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    )
    try:
        for head in heads:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head + smuggled)
            answers = await reader.read()
            writer.close()
            assert answers.count(b"HTTP/1.1 404") == 1, answers
            assert b"x-content-type-options: nosniff" in answers
        assert not asked_for
    finally:
        server.close()


async def test_a_feed_is_read_by_get_alone() -> None:
    async def chunks() -> AsyncGenerator[bytes]:
        yield b"data: 1\n\n"

    port = free_port()
    endpoints = {"/events": Endpoint(lambda: Stream(chunks(), 1, "too many look"))}
    server = await HttpServer.start(f"127.0.0.1:{port}", endpoints, PageAccess())
    try:
        answer = await asked(port, b"HEAD /events")
        assert answer.startswith(b"HTTP/1.1 405 ")
        assert b"allow: GET\r\n" in answer
        assert (await asked(port, b"GET /events")).endswith(b"data: 1\n\n")
    finally:
        server.close()
