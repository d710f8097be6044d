"""What no NATS server says, at the beginning of a connection and in the midst of it: the next good server is served."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ajhost.core.timings import CONNECTION_PROVEN, CONNECTION_TICK
from tests.support import fake_nats
from tests.support.factories import Enter, NewHost, StartHost
from tests.support.fake_nats import FakeNats, Script, Session, greets, interrupts, refuses, serves
from tests.support.host import Host
from tests.support.http_page import fetch
from tests.support.reported_state import listens, with_pages
from tests.support.router import headers_of, subject_of, task_json
from tests.support.sweep import sweep

ECHO = subject_of("echo")
BACK = 6.0
_TICKS = os.sysconf("SC_CLK_TCK")


def _info(**changes: object) -> Script:
    async def play(session: Session) -> None:
        await session.greet(**changes)
        await session.log_in()
        await session.serve()

    return play


def _ends_saying(text: str) -> Script:
    """A server that works, then says this and ends the connection."""

    async def play(session: Session) -> None:
        await session.greet()
        await session.log_in()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                await session.serve()
        await session.send(f"-ERR '{text}'\r\n".encode())

    return play


async def _drip(session: Session, beginning: bytes) -> None:
    await session.send(beginning)
    while True:
        await session.send(b"a")
        await asyncio.sleep(0.2)


def _drips(beginning: bytes) -> Script:
    """A server that works until it has a subscription, then sends this and a byte every 0.2 s, and answers nothing."""

    async def play(session: Session) -> None:
        await session.greet()
        await session.log_in()
        subscribed = False
        while not subscribed:
            line = await session.line()
            if line.startswith(b"SUB"):
                session.subscriptions["1"] = line.split()[1].decode()
            elif line == b"PING":
                await session.send(b"PONG\r\n")
                subscribed = bool(session.subscriptions)
        dripping = asyncio.create_task(_drip(session, beginning))
        try:
            await session.gone()
        finally:
            dripping.cancel()

    return play


async def _never_ends_a_line(session: Session) -> None:
    await session.send(b"INFO ")
    while True:
        await session.send(b"a" * 65536)


LINES: dict[str, bytes] = {
    "half an object": b"INFO {\r\n",
    "a list": b"INFO []\r\n",
    "null": b"INFO null\r\n",
    "no object at all": b"INFO\r\n",
    "bad UTF-8": b'INFO {"server_id":"\xff\xfe\x80"}\r\n',
    "connect_urls that are a number": b'INFO {"connect_urls":5}\r\n',
    "connect_urls of numbers": b'INFO {"connect_urls":[1,null,{}]}\r\n',
    "connect_urls that are no addresses": b'INFO {"connect_urls":["", ":", "[::1", "a:b:c", "x:99999999"]}\r\n',
    "deep nesting": b"INFO " + b"[" * 20_000 + b"\r\n",
    "two megabytes": b'INFO {"a":"' + b"x" * (2 << 20) + b'"}\r\n',
}
GREETINGS: dict[str, Script] = {name: greets(line) for name, line in LINES.items()} | {
    "HTTP": greets(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
    "SSH": greets(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "a line that never ends": _never_ends_a_line,
    "nothing": fake_nats.is_silent,
    "nothing after INFO": fake_nats.goes_silent,
    "the end": fake_nats.closes,
    "a reset": fake_nats.resets,
    "max_payload of text": _info(max_payload="1MB"),
    "max_payload of nothing": _info(max_payload=0),
    "max_payload below nothing": _info(max_payload=-1),
    "max_payload beyond all": _info(max_payload=10**30),
    "max_payload of a fraction": _info(max_payload=1.5),
    "an error at once": greets(b"-ERR 'maximum connections exceeded'\r\n"),
}
INTERRUPTIONS: dict[str, bytes] = LINES | {
    "a size of 10^30": b"MSG a 1 1" + b"0" * 30 + b"\r\n",
    "a size of 8 GB": b"MSG a 1 8589934592\r\n",
    "a size below nothing": b"MSG a 1 -5\r\n",
    "a size that is no number": b"MSG a 1 abc\r\n",
    "no size": b"MSG a 1\r\n",
    "more headers than message": b"HMSG a 1 50 10\r\n" + b"x" * 60 + b"\r\n",
    "an unknown word": b"HELLO there\r\n",
    "zeros": b"\0" * 1000 + b"\r\n",
    "an error without a text": b"-ERR\r\n",
    "an error that is not text": b"-ERR '\xff\xfe\x1b[2J'\r\n",
}
ERRORS = (
    "Authorization Violation",
    "Authorization Timeout",
    "User Authentication Expired",
    "User Authentication Revoked",
    "Account Authentication Expired",
    "Stale Connection",
    "Slow Consumer",
    "Maximum Connections Exceeded",
    "Maximum Account Active Connections Exceeded",
    "Maximum Payload Violation",
    "Parser Error",
    "Unknown Protocol Operation",
    "Secure Connection - TLS Required",
    "Connection Throttled",
    "what nobody knows",
)


@contextlib.contextmanager
def _of(name: str) -> Iterator[None]:
    """Tells which of several inputs an error is about."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"with {name}")
        raise


async def _serves_again(server: FakeNats, host: Host, lines: int) -> None:
    """Both workers are subscribed in time, a request is answered, and the log is not flooded."""
    await server.subscribed(ECHO, 2, BACK)
    deadline = int(time.time()) + 10
    reply = await server.request(ECHO, task_json("echo", b"alive"), headers_of(deadline))
    assert reply.data.endswith(b"alive"), reply
    assert len(host.output.lines) - lines < 60


@pytest.mark.parametrize("half", [0, 1])
async def test_a_host_goes_on_past_each_greeting_that_no_server_gives(
    start_host: StartHost, enter: Enter, half: int
) -> None:
    server = await enter(FakeNats(serves()))
    host = await start_host(nats=server.url)
    for name in list(GREETINGS)[half::2]:
        with _of(name):
            await server.subscribed(ECHO, 2, BACK)
            lines = len(host.output.lines)
            server.script = GREETINGS[name]
            await server.drop()
            await server.taken_at_least(len(server.taken) + 2)
            server.script = serves()
            await _serves_again(server, host, lines)


@pytest.mark.parametrize("half", [0, 1])
async def test_a_host_goes_on_past_each_interruption_that_no_server_makes(
    start_host: StartHost, enter: Enter, half: int
) -> None:
    server = await enter(FakeNats(serves()))
    host = await start_host(nats=server.url)
    for name in list(INTERRUPTIONS)[half::2]:
        with _of(name):
            await server.subscribed(ECHO, 2, BACK)
            lines = len(host.output.lines)
            server.script = interrupts(INTERRUPTIONS[name])
            await server.drop()
            await server.subscribed(ECHO, 1, BACK)
            await asyncio.sleep(0.3)  # what became of it shows in what comes after it
            server.script = serves()
            await server.drop()
            await _serves_again(server, host, lines)


@pytest.mark.parametrize("interruption", ["a size of 8 GB", "a size of 10^30", "zeros"])
async def test_a_host_does_not_stay_on_a_connection_that_makes_no_sense(
    start_host: StartHost, enter: Enter, interruption: str
) -> None:
    server = await enter(FakeNats(serves()))
    host = await start_host(nats=server.url)
    await server.subscribed(ECHO, 2, 5.0)
    lines = len(host.output.lines)
    for session in server.subscribers(ECHO):
        await session.send(INTERRUPTIONS[interruption])
    await server.taken_at_least(len(server.taken) + 2, BACK)  # nobody has ended the connections but the host
    await _serves_again(server, host, lines)


@pytest.mark.parametrize("beginning", [b"-ERR '", b"MSG a 1 100000\r\n"], ids=["a line", "a message"])
async def test_a_server_that_sends_a_byte_now_and_then_is_as_good_as_silent(
    start_host: StartHost, enter: Enter, beginning: bytes
) -> None:
    sections = with_pages(nats={"ping_interval": 1.0, "ping_timeout": 2.0})
    server = await enter(FakeNats(serves()))
    host = await start_host(nats=server.url, sections=sections)
    await server.subscribed(ECHO, 2, 5.0)
    lines = len(host.output.lines)
    server.script = _drips(beginning)
    await server.drop()
    await server.taken_at_least(len(server.taken) + 3)
    server.script = serves()
    await server.taken_at_least(len(server.taken) + 3, 12.0)  # nobody has ended the connections but the host
    assert "not a byte for" in host.log_text()
    await _serves_again(server, host, lines)


async def test_a_server_that_throws_out_whom_it_lets_in_fills_no_log(start_host: StartHost, enter: Enter) -> None:
    server = await enter(FakeNats(serves()))
    host = await start_host(nats=server.url)
    await server.subscribed(ECHO, 2, 5.0)
    lines = len(host.output.lines)
    server.script = interrupts(b"HELLO there\r\n")
    await server.drop()
    await server.taken_at_least(len(server.taken) + 21)
    told = [line.text for line in host.output.lines[lines:]]
    # each process tells once of the loss, of a reason or two that recur, and of its return
    assert len(told) <= 15, told
    server.script = serves()
    await _serves_again(server, host, lines)
    proven = len(host.output.lines)
    await asyncio.sleep(CONNECTION_PROVEN + 2 * CONNECTION_TICK)
    server.script = interrupts(b"HELLO there\r\n")
    await server.drop()
    await host.log("waiting for NATS", since=proven, timeout=BACK)  # it had lasted, so its end is news
    server.script = serves()
    await server.drop()


async def test_what_a_server_says_last_is_told_without_what_a_terminal_obeys(
    start_host: StartHost, enter: Enter
) -> None:
    sections = with_pages()
    server = await enter(FakeNats(serves()))
    host = await start_host(nats=server.url, sections=sections)
    await server.subscribed(ECHO, 2, 5.0)
    for script, told in (
        (refuses("\x1b[31mred\x07"), "?[31mred?"),
        (refuses(""), "an error without a text"),
        (_ends_saying("nobody knows it"), "closed the connection, saying: nobody knows it"),
    ):
        lines = len(host.output.lines)
        server.script = script
        await server.drop()
        await host.log(told, since=lines, timeout=6.0)
        async with asyncio.timeout(5):
            while told not in (page := await fetch(listens(sections), "/readyz")).text:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert page.status == 503
        assert "\x1b" not in page.text + host.log_text()
        server.script = serves()
        await _serves_again(server, host, lines)


async def test_a_worker_that_has_given_a_connection_up_is_not_taken_for_one_that_does_not_read(
    start_host: StartHost, enter: Enter
) -> None:
    server = await enter(FakeNats(serves()))
    host = await start_host(nats=server.url)
    await server.subscribed(ECHO, 2, 5.0)
    workers = host.workers()
    server.script = greets(b"A" * (2 << 20))
    await server.drop()
    await server.taken_at_least(len(server.taken) + 9)
    server.script = serves()
    await _serves_again(server, host, 0)
    assert "hangs" not in host.log_text()
    assert host.workers() == workers


async def test_every_refusal_is_told_and_outlived(start_host: StartHost, enter: Enter) -> None:
    server = await enter(FakeNats(serves()))
    host = await start_host(nats=server.url)
    await server.subscribed(ECHO, 2, 5.0)
    for text in ERRORS:
        lines = len(host.output.lines)
        server.script = refuses(text)
        await server.drop()
        await host.log(text, since=lines, timeout=6.0)
        server.script = serves()
        await _serves_again(server, host, lines)


async def test_a_line_that_never_ends_costs_neither_cpu_nor_log(start_host: StartHost, enter: Enter) -> None:
    server = await enter(FakeNats(serves()))
    host = await start_host(nats=server.url)
    await server.subscribed(ECHO, 2, 5.0)
    lines, sent = len(host.output.lines), 0

    async def never_ends(session: Session) -> None:
        nonlocal sent
        await session.send(b"INFO ")
        while True:
            await session.send(b"a" * 65536)
            sent += 1

    server.script = never_ends
    taken = len(server.taken)
    await server.drop()
    before, began = _cpu(host), time.monotonic()
    await asyncio.sleep(3)
    # each connection is given up after what the sockets hold, and the next is made after a pause
    connections = len(server.taken) - taken
    assert 0 < sent < 200 * connections
    assert connections < 60
    # a fifth of it on a machine that is not slow
    assert _cpu(host) - before < 0.8 * (time.monotonic() - began)
    server.script = serves()
    await _serves_again(server, host, lines)


@pytest.mark.parametrize(
    "greeting",
    sweep(["max_payload of text", "max_payload beyond all", "a list", "nothing"], "a list", "nothing"),
)
async def test_a_start_against_a_server_that_makes_no_sense_waits_and_says_why(
    new_host: NewHost, enter: Enter, greeting: str
) -> None:
    server = await enter(FakeNats(GREETINGS[greeting]))
    host = new_host(nats=server.url)
    await host.launch()
    await host.log("waiting for NATS", timeout=8.0)
    server.script = serves()
    await host.ready(BACK + 4.0)
    await server.subscribed(ECHO, 2, BACK)
    used = sum(file.stat().st_blocks * 512 for file in host.runtime.rglob("*") if file.is_file())
    assert used < 300 << 20
    assert await host.terminate() == 0


def _cpu(host: Host) -> float:
    """Seconds of CPU that its living processes have used."""
    ticks = 0
    for process in host.all_processes():
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS
