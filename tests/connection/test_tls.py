"""TLS that is wanted is enforced: nothing goes out in plaintext, nothing that came before a handshake counts."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import self_signed
from tests.support.factories import Enter, NewHost, StartHost, StartRouter, StartServer
from tests.support.fake_nats import FakeNats, Script, seals, serves
from tests.support.proxy import Direction, Partition
from tests.support.reported_state import subscribed_again
from tests.support.router import subject_of, task_json
from tests.support.sweep import sweep

ECHO = subject_of("echo")
SECRETS = (b"sesame", b"open-it")
BACK = 6.0
INJECTIONS: dict[str, bytes] = {
    "a request": b"",
    "a word": b"+OK\r\n",
    "another INFO": b'INFO {"server_id":"x","max_payload":1048576,"headers":true}\r\n',
    "half a line": b"MS",
    "one byte": b"\n",
}


def _server_side(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def _wanting(form: str, port: int, certificate: Path) -> tuple[str, Mapping[str, Mapping[str, Any]]]:
    """A server's address and settings, in each way in which TLS is asked for."""
    access = {"user": "sesame", "password": "open-it"}
    match form:
        case "tls://":
            return f"tls://127.0.0.1:{port}", {"nats": access, "nats.tls": {"ca": certificate}}
        case _:
            return f"nats://127.0.0.1:{port}", {"nats": access, "nats.tls": {"ca": certificate}}


def _nothing_told(server: FakeNats) -> None:
    """No CONNECT, let alone a secret, came over a connection that was not sealed."""
    assert not [log_in for log_in in server.log_ins if not log_in.sealed]


@pytest.mark.parametrize("form", ["tls://", "[nats.tls]"])
async def test_a_start_tells_nothing_to_a_server_that_does_not_ask_for_tls(
    tmp_path: Path, new_host: NewHost, enter: Enter, form: str
) -> None:
    certificate, key = self_signed(tmp_path)
    server = await enter(FakeNats(serves()))
    url, sections = _wanting(form, server.port, certificate)
    host = new_host(nats=url, sections=sections)
    await host.launch()
    await host.log(lambda line: "TLS" in line and "waiting for NATS" in line, timeout=8.0)
    assert not server.log_ins
    assert not [secret for secret in SECRETS if secret in server.received]
    result = await host.command("call", "echo", "x", "--timeout", "3")
    assert result.status != 0, result
    assert not server.log_ins
    assert not [secret for secret in SECRETS if secret in server.received]
    server.script = seals(_server_side(certificate, key))
    await host.ready(BACK + 4.0)
    await server.subscribed(ECHO, 2, BACK)
    _nothing_told(server)
    assert await host.terminate() == 0


@pytest.mark.parametrize("form", ["tls://", "[nats.tls]"])
async def test_a_server_that_asks_for_tls_no_more_at_a_reconnect_is_told_nothing(
    tmp_path: Path, start_host: StartHost, enter: Enter, form: str
) -> None:
    certificate, key = self_signed(tmp_path)
    sealed = seals(_server_side(certificate, key))
    server = await enter(FakeNats(sealed))
    url, sections = _wanting(form, server.port, certificate)
    host = await start_host(nats=url, sections=sections)
    await server.subscribed(ECHO, 2, 5.0)
    server.script, lines = serves(), len(host.output.lines)
    await server.drop()
    await server.taken_at_least(len(server.taken) + 2, BACK)
    await host.log(lambda line: "TLS" in line and "WARNING" in line, since=lines)
    server.script = sealed
    await server.subscribed(ECHO, 2, BACK)
    _nothing_told(server)


async def test_a_discovered_server_without_tls_is_told_nothing(
    tmp_path: Path, start_host: StartHost, enter: Enter
) -> None:
    certificate, key = self_signed(tmp_path)
    other = await enter(FakeNats(serves()))
    sealed = seals(_server_side(certificate, key), connect_urls=[f"127.0.0.1:{other.port}"])
    server = await enter(FakeNats(sealed))
    url, sections = _wanting("tls://", server.port, certificate)
    await start_host(nats=url, sections=sections)
    await server.subscribed(ECHO, 2, 5.0)
    server.script = _refusing
    await server.drop()
    await other.taken_at_least(2, BACK)
    server.script = sealed
    await server.subscribed(ECHO, 2, BACK)
    _nothing_told(other)
    assert not other.received


async def _refusing(session: object) -> None:
    """Takes a connection and ends it."""


@pytest.mark.parametrize("what", sweep(INJECTIONS, "a request", "another INFO"))
async def test_bytes_between_info_and_the_handshake_end_the_connection(
    tmp_path: Path, start_host: StartHost, enter: Enter, what: str
) -> None:
    certificate, key = self_signed(tmp_path)
    context = _server_side(certificate, key)
    task = task_json("work", {"record": str(tmp_path / "ran")})
    injected = INJECTIONS[what] or b"MSG %s 1 _INBOX.mitm %d\r\n%s\r\n" % (
        subject_of("work").encode(),
        len(task),
        task,
    )
    handlers = {"echo": "echo", "work": "work"}
    server = await enter(FakeNats(seals(context)))
    url, sections = _wanting("[nats.tls]", server.port, certificate)
    await start_host(nats=url, sections=sections, handlers=handlers)
    await server.subscribed(ECHO, 2, 5.0)
    server.script, before = seals(context, before=injected), len(server.log_ins)
    await server.drop()
    await server.taken_at_least(len(server.taken) + 2, BACK)
    assert len(server.log_ins) == before
    server.script = seals(context)
    await server.subscribed(ECHO, 2, BACK)
    assert not (tmp_path / "ran").exists()


async def test_a_man_in_the_middle_without_a_certificate_cannot_have_a_task_run(
    tmp_path: Path, start_server: StartServer, start_host: StartHost, enter: Enter, start_router: StartRouter
) -> None:
    certificate, key = self_signed(tmp_path)
    task = task_json("work", {"record": str(tmp_path / "ran")})
    work = subject_of("work").encode()
    message = b"MSG %s 1 _INBOX.mitm %d\r\n%s\r\n" % (work, len(task), task)

    def inject(direction: Direction, piece: bytes) -> bytes:
        return piece + message if direction is Direction.TO_CLIENT and piece.startswith(b"INFO") else piece

    trusting = ssl.create_default_context(cafile=certificate)
    config = f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}'
    server = await start_server(config=config, monitored=True)
    partition = await enter(Partition(server.port))
    await start_host(
        nats=partition.url,
        handlers={"echo": "echo", "work": "work"},
        sections={"nats.tls": {"ca": certificate}},
    )
    router = await start_router(tls=trusting)
    partition.change = inject
    await partition.cut()
    await asyncio.sleep(2)
    partition.heal()
    await subscribed_again(server, 2, BACK)
    assert (await router.request("echo", b"x")).body == b"x"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("fault", ["another authority", "no handshake", "an end in the handshake"])
async def test_a_handshake_that_fails_is_told_and_outlived(
    tmp_path: Path, start_host: StartHost, enter: Enter, fault: str
) -> None:
    certificate, key = self_signed(tmp_path)
    other = self_signed(tmp_path, "other")
    sealed = seals(_server_side(certificate, key))

    async def stays_silent(session: Any) -> None:
        await session.greet(tls_required=True)
        await session.gone()

    async def ends(session: Any) -> None:
        await session.greet(tls_required=True)
        await session.reader.read(100)

    scripts: dict[str, Script] = {
        "another authority": seals(_server_side(*other)),
        "no handshake": stays_silent,
        "an end in the handshake": ends,
    }
    server = await enter(FakeNats(sealed))
    url, sections = _wanting("[nats.tls]", server.port, certificate)
    host = await start_host(nats=url, sections=sections)
    await server.subscribed(ECHO, 2, 5.0)
    server.script, lines = scripts[fault], len(host.output.lines)
    await server.drop()
    await host.log("waiting for NATS", since=lines, timeout=BACK)
    await server.taken_at_least(len(server.taken) + 1)
    server.script = sealed
    await server.subscribed(ECHO, 2, BACK)
    _nothing_told(server)
    assert len(host.output.lines) - lines < 40


async def test_an_interpreter_of_handlers_that_trusts_others_is_told_with_whom_it_trusts(
    tmp_path: Path, start_server: StartServer, new_host: NewHost
) -> None:
    certificate, key = self_signed(tmp_path)
    interpreter = tmp_path / "python"
    interpreter.write_text(f'#!/bin/sh\nunset SSL_CERT_FILE\nexec {sys.executable} "$@"\n')
    interpreter.chmod(0o755)
    config = f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}'
    server = await start_server(config=config)
    host = new_host(
        nats=server.url.replace("nats://", "tls://"),
        sections={"python": {"interpreter": interpreter}},
        env={"SSL_CERT_FILE": str(certificate)},
    )
    await host.launch()
    told = await host.log("the handlers' interpreter trusts others than the host's")
    assert sys.executable in told.text  # what the script becomes
    assert str(certificate) in told.text  # whom the host trusts
    check = await host.command("check")
    assert "interpreter trusts others than the host's" in check.stdout + check.stderr
    line = await host.log(lambda line: "worker 0" in line and "certificate refused" in line, timeout=10.0)
    assert sys.executable in line.text  # what the script becomes
    assert str(certificate) not in line.text
    assert not host.notifications.having("READY")
    assert await host.terminate() == 0


@pytest.mark.parametrize("first", [True, False])
async def test_who_begins_with_tls_is_told_when_the_two_do_not_agree(
    tmp_path: Path, start_server: StartServer, new_host: NewHost, first: bool
) -> None:
    certificate, key = self_signed(tmp_path)
    beginning = str(not first).lower()
    config = f'tls {{ cert_file: "{certificate}", key_file: "{key}", handshake_first: {beginning}, timeout: 0.5 }}'
    server = await start_server(config=config)
    url = server.url.replace("nats://127.0.0.1", "tls://localhost")
    host = new_host(nats=url, sections={"nats": {"tls": {"ca": certificate, "first": first}}})
    result = await host.command("call", "echo", "x", "--timeout", "1")
    assert result.status != 0
    assert f"[nats.tls] first = {beginning}" in result.stdout + result.stderr
