"""Who may look and who may act: the host's group reads the status and nothing else, others nothing at all."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ajhost.roles.control_client import view
from tests.support.factories import StartHost
from tests.support.host import Host, steady
from tests.support.program import CommandResult, run
from tests.support.router import Router

GROUP = 61_234
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
AS_SOMEBODY = """
import os, sys
# the interpreter may lie where only root may read
import ajhost.cli.attempts, ajhost.cli.main, ajhost.cli.status
import ajhost.roles.control_client, ajhost.settings.runtime_table
import difflib, encodings.idna, glob, json, tomllib
os.setgroups([])
os.setresgid({gid}, {gid}, {gid})
os.setresuid(65534, 65534, 65534)
from ajhost.cli.main import main
main(sys.argv[1:])
"""


async def as_somebody(directory: Path, host: Host, gid: int, command: str, mode: int = 0o644) -> CommandResult:
    """A command of `ajhost` by another user, of a group, who may read the settings unless `mode` is another."""
    config = directory / "settings.toml"
    config.write_text(f'[runtime]\ndirectory = "{host.runtime}"\n')
    config.chmod(mode)
    source = AS_SOMEBODY.format(gid=gid)
    return await run(sys.executable, "-c", source, command, "-c", config, "--json", env=host.environment)


@pytest.fixture
def readable() -> Iterator[Path]:
    """A directory that everybody may read; pytest's own are root's alone."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


async def test_a_member_of_the_group_may_look(readable: Path, start_host: StartHost, router: Router) -> None:
    host = await start_host(directory=readable, handlers={"echo": "echo", "work": "work"})
    failed = await router.send("work", {"kind": "error"})
    await router.settled([failed])
    host.runtime.chmod(0o750)
    for path in (host.runtime, host.runtime / "view"):
        os.chown(path, 0, GROUP)
    result = await as_somebody(readable, host, GROUP, "status")
    assert (result.status, result.stderr) == (0, ""), result
    assert steady(json.loads(result.stdout)) == steady(await host.status())
    assert (await as_somebody(readable, host, GROUP, "tasks")).stdout == "[]\n"
    attempts = await as_somebody(readable, host, GROUP, "attempts")
    assert (attempts.status, attempts.stderr) == (0, ""), attempts
    assert [attempt["id"] for attempt in json.loads(attempts.stdout)] == [failed.id]


async def test_nobody_else_may(readable: Path, start_host: StartHost) -> None:
    host = await start_host(directory=readable)
    os.chown(host.runtime, 0, GROUP)
    host.runtime.chmod(0o750)
    result = await as_somebody(readable, host, GROUP + 1, "status")
    assert (result.status, result.stdout) == (3, "")
    assert "Permission denied" in result.stderr
    unreadable = await as_somebody(readable, host, GROUP, "status", 0o600)
    assert (unreadable.status, unreadable.stderr) == (
        78,
        f"{readable}/settings.toml: Permission denied; ask as root or as a member of the host's group\n",
    )


async def test_what_is_to_act_and_what_holds_payloads_is_not_for_the_group(host: Host) -> None:
    modes = {
        path.relative_to(host.runtime).parts[0]: stat.S_IMODE(path.stat().st_mode) for path in host.runtime.iterdir()
    }
    assert modes["view"] == 0o660
    assert {name for name, mode in modes.items() if mode & 0o077 and name != "view"} == set()


async def test_readers_that_do_not_read_hold_nobody_up(host: Host) -> None:
    held = []
    for _ in range(64):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(host.runtime / "view"))
        held.append(sock)
    assert (await host.command("status")).status == 0
    for sock in held:
        sock.close()
    # who comes while the others are not gone yet is turned away, and comes again
    assert (await asyncio.to_thread(view, host.runtime)).count == 2
