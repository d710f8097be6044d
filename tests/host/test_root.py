"""Root that starts a host or a check itself: handlers are another user's if one is named, and never silently root's."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.factories import Enter
from tests.support.host import Host
from tests.support.nats import NatsServer
from tests.support.notify_socket import NotifySocket
from tests.support.program import CommandResult, run
from tests.support.router import Router

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
UID, GID = 12345, 12346
APP = """
import os
IMPORTED = os.getuid()
async def who(task):
    return [IMPORTED, os.getuid(), os.getgid(), os.getgroups(), os.environ["HOME"]]
"""


OPEN = """
set -e
mount --make-rprivate /
kept=$(mktemp -d)
chmod 755 "$kept"
mkdir -p "$kept$1"
mount --bind "$1" "$kept$1"
mount --rbind "$kept/root" /root
shift
exec "$@"
"""
"""An interpreter below /root can be read by everybody, in a namespace of its own. Arguments: its place, a command."""


class Readable(Host):
    """A host whose files everybody may read, and whose notifications everybody may send."""

    def __init__(self, directory: Path, server: NatsServer, user: str | None) -> None:
        super().__init__(
            directory,
            nats=server.url,
            modules={"app": APP},
            handlers={"who": "app:who"},
            sections={"workers": {"count": 1}, "runtime": {} if user is None else {"user": user}},
        )
        for path in (self.directory, self.application):
            path.chmod(0o755)
        self.file.chmod(0o644)

    @property
    def program(self) -> tuple[str, ...]:
        """As others, with an interpreter that everybody may read."""
        return self.readable(*super().program)

    def readable(self, *command: str) -> tuple[str, ...]:
        """A command with such an interpreter."""
        if not sys.base_prefix.startswith("/root/"):
            return command
        return ("unshare", "--mount", "sh", "-c", OPEN, "sh", sys.base_prefix, *command)

    def _listen(self, path: Path) -> NotifySocket:
        found = super()._listen(path)
        path.chmod(0o777)
        return found

    async def check(self, *arguments: str) -> CommandResult:
        """`ajhost check`."""
        command = (sys.executable, "-m", "ajhost", "check", "-c", str(self.file), *arguments)
        return await run(*self.readable(*command), env=self.environment, timeout=30.0)


@pytest.fixture
def readable() -> Iterator[Path]:
    """A directory that everybody may read; pytest's own are root's alone."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("made", [True, False], ids=["a directory of theirs", "no directory"])
async def test_root_becomes_the_user_that_the_settings_name(
    nats_server: NatsServer, readable: Path, enter: Enter, router: Router, made: bool
) -> None:
    host = Readable(readable, nats_server, f"{UID}:{GID}")
    os.chown(host.runtime, UID, GID)
    if not made:
        host.runtime.rmdir()
    await enter(host)
    who = json.loads((await router.request("who", b"")).body)
    assert who == [UID, UID, GID, [GID], "/"]
    assert host.runtime.stat().st_uid == UID
    assert (await host.status())["supervisor"]["ready"]
    assert "root imports" not in host.log_text()
    # the supervisor may be looked at by its own user: a next start duplicates sockets by that
    assert Path(f"/proc/{host.pid}/fd").stat().st_uid == UID
    assert (await host.reload()).status == 0
    assert "root imports" not in (checked := await host.check()).stderr
    assert checked.status == 0, checked


async def test_root_is_told_that_it_imports_handlers_unless_it_is_meant(
    nats_server: NatsServer, tmp_path: Path, enter: Enter
) -> None:
    host = await enter(Readable(tmp_path, nats_server, None))
    await host.log("root imports and runs the handlers")
    checked = await host.check()
    assert checked.status == 0
    assert "root imports and runs the handlers" in checked.stderr
    meant = await host.check("--user", "root")
    assert meant.status == 0
    assert "root imports" not in meant.stderr


@pytest.mark.parametrize("user", ["nosuch-user", "12345:4294967295", ""])
async def test_a_user_that_is_none_is_told(nats_server: NatsServer, tmp_path: Path, user: str) -> None:
    host = Readable(tmp_path, nats_server, user)
    try:
        for command in ("check", "run"):
            told = await host.command(command)
            assert told.status == 78, told
            assert "runtime.user" in told.stderr
            assert "allowed: " in told.stderr
    finally:
        await host.destroy()
