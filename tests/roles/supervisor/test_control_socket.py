"""Clients of a local socket who are many, who do not read, or who do not say what they want."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import select
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from ajhost.roles.control_client import control as ask
from ajhost.roles.supervisor import control_socket
from ajhost.roles.supervisor.control_socket import Decision

LARGE = b"x" * 4_000_000
"""More than the kernel keeps for a client who does not read."""


def connected(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect(str(path))
    return sock


def hung_up(sock: socket.socket) -> None:
    """Returns when the server has closed its end. Nothing is read."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    assert poll.poll(20_000)


async def all_of(sock: socket.socket) -> bytes:
    with sock, sock.makefile("rb") as stream:
        return await asyncio.to_thread(stream.read)


async def test_clients_who_do_not_read_are_cut_off_and_cost_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_socket, "LOCAL_CLIENT_LIMIT", 0.1)
    server = await control_socket.serve_view(tmp_path, lambda: LARGE)
    gc.collect()  # what other tests have left would be closed in between
    before = len(os.listdir("/proc/self/fd"))
    slow = [connected(tmp_path / "view") for _ in range(40)]
    for sock in slow:
        await asyncio.to_thread(hung_up, sock)
    assert len(os.listdir("/proc/self/fd")) == before + len(slow)
    for sock in slow:
        assert len(await all_of(sock)) < len(LARGE)
    assert await all_of(connected(tmp_path / "view")) == LARGE
    server.close()


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[list[Mapping[str, object]]]:
    """What the action `note` of a control socket was asked for."""
    found: list[Mapping[str, object]] = []

    async def note(asked: Mapping[str, object]) -> Decision:
        found.append(asked)
        return Decision(True, "noted")

    server = await control_socket.serve(tmp_path, tmp_path / "ajhost.toml", {"note": note})
    yield found
    server.close()
    await asyncio.sleep(0)


async def test_who_does_not_finish_a_request_is_turned_away_and_others_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[Mapping[str, object]]
) -> None:
    half = []
    for _ in range(32):
        half.append(connected(tmp_path / "control"))
        half[-1].send(b'{"ask": "no')
    assert await asyncio.to_thread(ask, tmp_path, 20, {"ask": "note"}) == (
        False,
        "32 others ask at the same time",
    )
    for sock in half[:16]:
        sock.close()
    while not (await asyncio.to_thread(ask, tmp_path, 20, {"ask": "note"}))[0]:
        pass
    assert len(asked) == 1
    monkeypatch.setattr(control_socket, "LOCAL_CLIENT_LIMIT", 0.1)
    late = connected(tmp_path / "control")
    late.send(b'{"ask": "no')
    assert json.loads(await all_of(late)) == {
        "taken": False,
        "text": "no request that this host knows, or one of more than 64 KiB",
    }
    for sock in half[16:]:
        sock.close()


@pytest.mark.parametrize(
    "line",
    [b"", b"[]", b"null", b"\xff", b'"\\ud800"', b"[" * 50_000, b"x" * 200_000, b'{"ask": ["note"]}', b"{}"],
)
async def test_what_is_no_request_is_told_so(tmp_path: Path, asked: list[Mapping[str, object]], line: bytes) -> None:
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "control"))
    writer.write(line + b"\n")
    assert json.loads(await reader.readline()) == {
        "taken": False,
        "text": "no request that this host knows, or one of more than 64 KiB",
    }
    writer.close()
    assert asked == []


async def test_settings_that_can_be_no_file_are_not_the_hosts(
    tmp_path: Path, asked: list[Mapping[str, object]]
) -> None:
    done, text = await asyncio.to_thread(ask, tmp_path, 20, {"ask": "note", "settings": "a\0b"})
    assert not done
    assert "runs on" in text
    assert asked == []
