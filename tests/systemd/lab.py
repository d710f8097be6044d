"""A machine for a test: a real systemd in a throw-away overlay of this one, with the package installed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from tests.support.host import Section, settings_text
from tests.support.program import CommandResult, run

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "scripts" / "systemd-lab"
UNIT = "ajhost.service"
APPLICATION = "/srv/app"
_POLL = 0.02
_ENVIRONMENT = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LANG=C.UTF-8",
)


class LabFailed(AssertionError):
    """The machine did something else than the test needed; the text has its words."""


def why_not() -> str | None:
    """Why this machine cannot boot a systemd; None if it can."""
    if os.geteuid() != 0:
        return "a systemd is booted by root only"
    for program, package in (
        ("systemd-nspawn", "systemd-container"),
        ("dpkg-deb", "dpkg"),
        ("dbus-daemon", "dbus-daemon"),
    ):
        if shutil.which(program) is None:
            return f"a systemd for tests needs Debian's package {package}"
    return None


class Lab:
    """One machine. It shares the network of this one, so that servers and routers of the test are at its 127.0.0.1."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._leader = ""
        self._root = Path()

    def up(self, *options: str) -> Self:
        """Boots it, in well under a second."""
        self._lab("up", "--network", "host", "--quiet", *options)
        self._find()
        return self

    def _find(self) -> None:
        self._leader = self._lab("pid").strip()
        self._root = Path(f"/proc/{self._leader}/root")

    def down(self) -> None:
        """Ends every process of it and forgets what it wrote."""
        self._lab("down", "--quiet")

    async def reboot(self) -> None:
        """An orderly reboot: `/run` is new, the rest stays. Returns when it is up again."""
        await asyncio.to_thread(self._lab, "reboot", "--quiet")
        self._find()

    def _lab(self, verb: str, *arguments: str) -> str:
        done = subprocess.run(
            [PROGRAM, verb, "--name", self.name, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        if done.returncode != 0:
            raise LabFailed(f"systemd-lab {verb}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    # files

    def path(self, inside: str) -> Path:
        """Where the machine's file `inside` is for us."""
        return self._root / inside.lstrip("/")

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        """Writes a file of root's, and the directories on its way."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    # commands

    async def run(self, *command: str, user: str | None = None, timeout: float = 60.0) -> CommandResult:
        """Runs a command inside, as root unless `user` says otherwise."""
        # as `systemd-lab exec` does it, but for 4 ms instead of 50: the tests run hundreds of commands
        inside = ("nsenter", "--target", self._leader, "--all", "--wdns=/", "env", "-i", *_ENVIRONMENT)
        return await run(*inside, *(() if user is None else self._as(user)), *command, timeout=timeout)

    def _as(self, user: str) -> tuple[str, ...]:
        """What turns root into a user of the machine."""
        rows = [line.split(":") for line in self.path("/etc/passwd").read_text().splitlines()]
        uid, gid = next((row[2], row[3]) for row in rows if row[0] == user)
        return ("setpriv", "--reuid", uid, "--regid", gid, "--init-groups")

    async def do(self, *command: str, user: str | None = None, timeout: float = 60.0) -> str:
        """Runs a command that must succeed; what it printed. Raises LabFailed."""
        result = await self.run(*command, user=user, timeout=timeout)
        if result.status != 0:
            raise LabFailed(f"{' '.join(command)}: {result.status}\n{result.stdout}{result.stderr}")
        return result.stdout

    def install(self, package: Path) -> str:
        """`dpkg --install`, or the upgrade; what it printed."""
        shutil.copy(package, self.path(f"/var/tmp/{package.name}"))
        # images of containers bring one that forbids every start of a service
        self.path("/usr/sbin/policy-rc.d").unlink(missing_ok=True)
        # without triggers, because the index of all man pages of the machine takes its time
        return self._lab("exec", "--", "dpkg", "--no-triggers", "--install", f"/var/tmp/{package.name}")

    # the unit

    async def show(self, property_: str, unit: str = UNIT) -> str:
        """A property of a unit, as `systemctl show` prints it."""
        return (await self.do("systemctl", "show", "--property", property_, "--value", unit)).strip()

    async def pid(self, unit: str = UNIT) -> int:
        """The main process, by the machine's own numbers."""
        return int(await self.show("MainPID", unit))

    async def until(
        self, condition: Callable[[], Awaitable[bool]], what: str, timeout: float = 60.0, unit: str = UNIT
    ) -> None:
        """Returns when `condition` holds. Raises LabFailed with the unit's log."""
        end = time.monotonic() + timeout
        while not await condition():
            if time.monotonic() > end:
                raise LabFailed(f"not within {timeout} s: {what}\n{await self.log(unit)}")
            await asyncio.sleep(_POLL)

    async def until_shows(self, property_: str, *values: str, unit: str = UNIT, timeout: float = 60.0) -> None:
        """Returns when the property has one of the values."""

        async def shown() -> bool:
            return await self.show(property_, unit) in values

        await self.until(shown, f"{property_} of {unit} is {' or '.join(values)}", timeout, unit)

    async def processes(self, unit: str = UNIT) -> dict[int, str]:
        """Pid to title of every process of the unit."""
        listed = await self.run("sh", "-c", _PROCESSES, "sh", unit)
        return {int(pid): title for pid, _, title in (line.partition(" ") for line in listed.stdout.splitlines())}

    # the journal

    async def journal(self, *matches: str) -> list[dict[str, Any]]:
        """The records that match, all that was sent before included."""
        await self.do("journalctl", "--sync")
        text = await self.do("journalctl", "--output", "json", "--all", *matches)
        return [json.loads(line) for line in text.splitlines()]

    async def log(self, unit: str = UNIT) -> str:
        """The unit's log as a person reads it."""
        return (await self.run("journalctl", "-u", unit, "-o", "short-precise", "-n", "200")).stdout

    async def until_logged(self, part: str, *matches: str, timeout: float = 60.0) -> dict[str, Any]:
        """The first record whose message has `part`."""
        found: list[dict[str, Any]] = []

        async def logged() -> bool:
            found[:] = [r for r in await self.journal(*matches) if part in str(r.get("MESSAGE"))]
            return bool(found)

        await self.until(logged, f"a record with {part!r}", timeout)
        return found[0]


_PROCESSES = r"""
group=$(systemctl show --property ControlGroup --value "$1")
for dir in /sys/fs/cgroup/systemd /sys/fs/cgroup; do
    [ -e "$dir$group/cgroup.procs" ] || continue
    while read -r pid; do
        printf '%s ' "$pid"; tr '\0' ' ' <"/proc/$pid/cmdline"; echo
    done <"$dir$group/cgroup.procs"
    break
done
"""


class InstalledHost:
    """The service of the package on a machine, with settings of the test's own."""

    def __init__(self, lab: Lab, unit: str = UNIT, name: str = "ajhost") -> None:
        self.lab = lab
        self.unit = unit
        self.file = f"/etc/ajhost/{name}.toml"
        self.runtime = "/run/ajhost" if name == "ajhost" else f"/run/ajhost-{name}"

    def configure(
        self,
        url: str,
        handlers: Mapping[str, str | Section],
        sections: Mapping[str, Section] | None = None,
    ) -> None:
        """Writes its settings; targets are functions of `handlers.py` in the application's directory."""
        text: dict[str, dict[str, Any]] = {
            "nats": {"servers": [url]},
            "python": {"path": [APPLICATION]},
            "workers": {"count": 2, "drain_timeout": 10.0},
            "runtime": {"directory": self.runtime},
        }
        for route, handler in handlers.items():
            table = {"target": handler} if isinstance(handler, str) else dict(handler)
            if ":" not in table["target"]:
                table["target"] = f"handlers:{table['target']}"
            text[f"handlers.{json.dumps(route)}"] = table
        for section, values in (sections or {}).items():
            text[section] = {**text.get(section, {}), **values}
        self.lab.path(self.file).write_text(settings_text(text))

    async def start(self) -> None:
        """Returns when it is ready."""
        await self.lab.do("systemctl", "start", self.unit)

    async def stop(self) -> None:
        """Returns when it has ended."""
        await self.lab.do("systemctl", "stop", self.unit)

    async def pid(self) -> int:
        """The supervisor's process."""
        return await self.lab.pid(self.unit)

    async def kill(self, signal: str, pids: Iterable[int]) -> None:
        """Sends a signal to processes, by the machine's numbers."""
        await self.lab.do("kill", f"-{signal}", *map(str, pids))

    async def workers(self) -> dict[int, int]:
        """Slot to pid of those that `ajhost status` shows as serving, by the machine's numbers."""
        status = await self.status()
        return {worker["slot"]: worker["pid"] for worker in status["workers"] if worker["state"] == "serving"}

    async def status(self) -> dict[str, Any]:
        """`ajhost status --json`."""
        result = await self.lab.run("ajhost", "status", "--json", "-c", self.file)
        if result.status not in (0, 1):
            raise LabFailed(f"ajhost status: {result}\n{await self.lab.log(self.unit)}")
        answer: dict[str, Any] = json.loads(result.stdout)
        return answer
