"""Who may see the page and the status, and what one client can cost the others."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ajhost.adapters.http import PageAccess
from tests.host.test_http import answers_until, fetch, keep_alive
from tests.support.factories import StartHost
from tests.support.host import Host

GUARDED = ("/", "/status", "/events", "/page.js", "/page.css")
OPEN = ("/metrics", "/healthz", "/readyz")


@pytest.fixture
def listen() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


def _status(url: str, headers: Mapping[str, str]) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers)), timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


async def status(listen: str, path: str, **headers: str) -> int:
    return await asyncio.to_thread(_status, f"http://{listen}{path}", headers)


def basic(word: str) -> str:
    return "Basic " + base64.b64encode(f"anybody:{word}".encode()).decode()


@pytest.fixture
async def guarded(start_host: StartHost, tmp_path: Path, listen: str) -> Host:
    word = tmp_path / "token"
    word.write_text("open sesame\n")
    word.chmod(0o600)
    sections = {"http": {"listen": listen, "token_file": word, "hosts": ["jobs.example.net"]}}
    return await start_host(sections=sections)


async def test_with_a_token_page_and_status_ask_for_it_and_health_does_not(guarded: Host, listen: str) -> None:
    for path in GUARDED:
        assert await status(listen, path) == 401
        assert await status(listen, path, Authorization="Bearer open") == 401
        assert await status(listen, path, Authorization=basic("open")) == 401
        assert await status(listen, path, Authorization="Bearer open sesame") == 200
        assert await status(listen, path, Authorization=basic("open sesame")) == 200
    for path in OPEN:
        assert await status(listen, path) == 200
    assert "open sesame" not in guarded.log_text()


async def test_a_page_of_somebody_else_cannot_ask_by_a_name_of_its_own(guarded: Host, listen: str) -> None:
    for name in (
        "evil.example",
        "evil.example:9464",
        "jobs.example.net.evil.example",
        "127.0.0.1.evil.example",
        "[::1].evil.example",
        "[::1]evil.example:80",
    ):
        assert await status(listen, "/status", Host=name, Authorization="Bearer open sesame") == 421
    for name in (
        "jobs.example.net",
        "JOBS.example.net:9464",
        "localhost:9464",
        "[::1]:9464",
        "192.0.2.7",
        listen,
    ):
        assert await status(listen, "/status", Host=name, Authorization="Bearer open sesame") == 200
    assert await status(listen, "/metrics", Host="evil.example") == 200


def test_an_authorization_header_of_any_kind_is_no_exception() -> None:
    access = PageAccess(b"word")
    for value in (
        b"",
        b"Bearer",
        b"Basic",
        b"Basic !!!",
        b"Basic d29yZA==",
        b"Digest word",
        b"Basic \xff",
        b"\xff",
    ):
        refusal = access.refusal({b"host": b"localhost", b"authorization": value})
        assert refusal is not None
        assert refusal.status == 401


async def test_a_host_that_others_reach_without_a_token_says_so(listen: str, start_host: StartHost) -> None:
    sections = {"http": {"listen": f"0.0.0.0:{listen.rpartition(':')[2]}"}}
    host = await start_host(sections=sections)
    assert "everybody who reaches it may see the page" in host.log_text()
    assert await status(listen, "/status") == 200


async def test_connections_that_never_end_their_request_do_not_keep_others_out(
    listen: str, start_host: StartHost
) -> None:
    host = await start_host(sections={"http": {"listen": listen}})
    await answers_until(listen, "/readyz", 200)
    address, _, port = listen.rpartition(":")
    with contextlib.ExitStack() as held:
        slow = []
        for _ in range(40):
            sock = held.enter_context(socket.create_connection((address, int(port)), timeout=10))
            sock.sendall(b"G")
            slow.append(sock)
        assert (await fetch(listen, "/healthz")).status == 200
        # and they are closed by and by, one that had an answer before too
        with keep_alive(listen) as kept:
            kept.sendall(b"GET /hea")
            slow.append(kept)
            for sock in slow:
                with contextlib.suppress(ConnectionResetError):
                    assert await asyncio.to_thread(sock.recv, 1) == b""
    assert (await host.status())["supervisor"]["ready"]


async def test_connections_that_do_not_read_their_answers_do_not_keep_others_out(
    listen: str, start_host: StartHost
) -> None:
    await start_host(sections={"http": {"listen": listen}})
    await answers_until(listen, "/readyz", 200)
    address, _, port = listen.rpartition(":")
    with contextlib.ExitStack() as held:
        for _ in range(40):
            sock = held.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            sock.connect((address, int(port)))
            sock.setblocking(False)
            sock.send(b"GET /page.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 400)
        served = 0
        async with asyncio.timeout(30):  # it lasts until the answers have filled the kernel's buffers
            while served < 20:
                try:
                    served += (await fetch(listen, "/healthz")).status == 200
                except OSError:
                    served = 0


async def test_events_are_told_once_a_second_and_not_read_when_nobody_looks(listen: str, start_host: StartHost) -> None:
    await start_host(sections={"http": {"listen": listen}})
    reader, writer = await asyncio.open_connection(*listen.split(":"))
    writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(20):
        events: list[dict[str, Any]] = []
        while len(events) < 3:
            line = (await reader.readline()).strip()
            if line.startswith(b"data: "):
                events.append(json.loads(line.removeprefix(b"data: ")))
    writer.close()
    await writer.wait_closed()
    assert [sorted(event) for event in events] == [["at", "attempts", "events", "status"]] * 3
    assert events[0]["events"][0]["kind"] == "ready"
    assert 0.5 < events[2]["at"] - events[1]["at"] < 20


async def test_more_viewers_than_some_are_refused(listen: str, start_host: StartHost) -> None:
    await start_host(sections={"http": {"listen": listen}})
    async with contextlib.AsyncExitStack() as held:
        for number in range(17):
            reader, writer = await asyncio.open_connection(*listen.split(":"))
            held.callback(writer.close)
            writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await reader.readline()).split()[1] == (b"200" if number < 16 else b"503")
        assert (await fetch(listen, "/healthz")).status == 200
