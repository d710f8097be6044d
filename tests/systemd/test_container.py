"""A host as process 1 of a container: read-only root, a user without name and home, a small /run, no settings file."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.nats import NatsServer
from tests.support.process_log import Log
from tests.support.program import CommandResult
from tests.support.router import Router
from tests.systemd.lab import why_not

UID = 10001
CONTAINER = """
set -e
mount --make-rprivate /
mount -t overlay -o lowerdir="$1:/" container "$2"
mount -t proc proc "$2/proc"
mount --rbind /dev "$2/dev"
mount -t tmpfs -o "size=$3,mode=1777" run "$2/run"
shift 3
exec chroot --userspec=10001:10001 --groups=10001 "$@"
"""
"""Arguments: the unpacked package, where to put the root, the size of /run, the root again and the command."""


@asynccontextmanager
async def container(
    image: Path, root: Path, variables: dict[str, str], size: str = "64m"
) -> AsyncIterator[tuple[asyncio.subprocess.Process, Log]]:
    """A host in it, with these settings."""
    environment = [f"{name}={value}" for name, value in variables.items()]
    process = await asyncio.create_subprocess_exec(
        *("unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--uts", "--ipc"),
        *("sh", "-c", CONTAINER, "sh", image, root, size, root),
        *("env", "-i", "PATH=/usr/bin:/bin", *environment, "ajhost", "run"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    log = Log(process.stderr)
    try:
        yield process, log
    finally:
        # process 1, whose end is that of the namespace: its parent's death signal was lost with the change of user
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        if process.returncode is None and (inside := children.read_text().split()):
            os.kill(int(inside[0]), signal.SIGKILL)
        await process.wait()
        await log.close()


@pytest.fixture
def root() -> Iterator[Path]:
    """Where a root is mounted: in a file system of its own, for layers must not lie in each other."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        yield Path(place)


@pytest.fixture(scope="module")
def image(package: Path) -> Iterator[Path]:
    """The package, unpacked, and handlers."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        _unpack(package, Path(place))
        yield Path(place)


def _unpack(package: Path, place: Path) -> None:
    subprocess.run(["dpkg-deb", "--extract", package, place], check=True)
    shutil.rmtree(place / "lib")  # the units: it would hide the libraries of the system behind its link
    (place / "app").mkdir()
    (place / "app" / "mail.py").write_text(
        "import os\n\ndef look(task):\n"
        "    ours = [name for name in os.environ if name.startswith('AJHOST_')]\n"
        "    return {'uid': os.getuid(), 'ppid': os.getppid(), 'settings': ours}\n"
    )
    place.chmod(0o755)


def settings(server: NatsServer, **more: str) -> dict[str, str]:
    return {
        "AJHOST_NATS__SERVERS": json.dumps([server.url]),
        "AJHOST_HANDLERS": json.dumps({"look": {"target": "mail:look"}}),
        "AJHOST_PYTHON__PATH": '["/app"]',
        "AJHOST_WORKERS__COUNT": "2",
        "AJHOST_WORKERS__BACKLOG": "64",
        "AJHOST_LOG__FORMAT": "json",
        **more,
    }


COMMANDS = {
    "status": "settings of the environment, up",
    "status --json": '"serving"',
    "check": "settings of the environment: good, 1 handler",
    "routes": "mail:look",
    "tasks --json": "[]",
    "call look {}": '"ppid":1',
    "reload": "generation 2 serves",
}
"""What is run in a container as `docker exec` does it, and a part of what it prints: no file names the runtime
directory.
"""


async def execute(process: str, variables: dict[str, str], *command: str) -> CommandResult:
    """`ajhost` beside a process of a container, with the container's environment and user."""
    environment = [f"{name}={value}" for name, value in variables.items()]
    run = await asyncio.create_subprocess_exec(
        *("nsenter", "--target", process, "--mount", "--pid", "--uts", "--ipc", "--root", "--wd"),
        *(f"--setuid={UID}", f"--setgid={UID}", "env", "-i", "PATH=/usr/bin:/bin", *environment),
        *("ajhost", *command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdout, stderr = await asyncio.wait_for(run.communicate(), 60)
    assert run.returncode is not None
    return CommandResult(run.returncode, stdout.decode(), stderr.decode())


async def test_it_serves_as_process_1_and_stops_in_order(image: Path, nats_server: NatsServer, root: Path) -> None:
    async with (
        container(image, root, settings(nats_server)) as (process, log),
        Router(nats_server.url) as router,
    ):
        line = await log.next("workers serve", timeout=60)
        assert json.loads(line.text)["pid"] == 1
        found = (await router.request("look")).json()
        assert found == {"uid": UID, "ppid": 1, "settings": []}
        (inside,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for command, said in COMMANDS.items():
            done = await execute(inside, settings(nats_server), *command.split())
            assert done.status == 0, (command, done)
            assert said in done.stdout, command
        subprocess.run(["kill", f"-{signal.SIGTERM.value}", inside], check=True)
        assert await asyncio.wait_for(process.wait(), 20) == 0
        for told in log.text().splitlines():
            json.loads(told)


async def test_a_run_that_is_too_small_is_told_with_what_is_needed(
    image: Path, nats_server: NatsServer, root: Path
) -> None:
    async with container(image, root, settings(nats_server), "8m") as (process, log):
        assert await asyncio.wait_for(process.wait(), 60) != 0
        await log.ended(timeout=5.0)
        assert "no space left: a ledger takes" in log.text()
        assert "are free" in log.text()


async def test_a_mistake_is_told_by_its_variable(image: Path, nats_server: NatsServer, root: Path) -> None:
    wrong = settings(nats_server, AJHOST_WORKERS__CUONT="3")
    async with container(image, root, wrong) as (process, log):
        status = await asyncio.wait_for(process.wait(), 60)
        await log.ended(timeout=5.0)
        assert status == 78, log.text()
        assert "AJHOST_WORKERS__CUONT (environment): workers.cuont: found an unknown key" in log.text()
