"""A lab on disk: its directory, its lock, and what is known of its processes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from dataclasses import asdict, dataclass

from scripts.lib.systemd_lab import cgroups
from scripts.lib.systemd_lab.linux import LabError, start_time

_POLL = 0.02


@dataclass
class State:
    """What the keeper and `up` write for the other commands. Processes are known by id and start time (clock ticks)."""

    keeper: int
    keeper_start: int | None
    ready: bool = False
    leader: int = 0
    leader_start: int | None = None
    boots: int = 0
    boot_s: float = 0.0
    cgroup: str = ""
    network: str = ""
    ended: int | None = None


class Lab:
    """The lab of one name below the directory of all labs."""

    def __init__(self, name: str, base: str) -> None:
        """:raises LabError: a name that is no plain word."""
        if not name.replace("-", "").replace("_", "").isalnum():
            raise LabError(f"bad name {name!r}: letters, digits, '-' and '_' are allowed")
        self.name, self.base = name, os.path.abspath(base)
        self.directory = os.path.join(self.base, name)
        self.lock_fd = -1
        self._lock_path = os.path.join(self.base, f".{name}.lock")

    def path(self, *parts: str) -> str:
        """A path in the lab's directory."""
        return os.path.join(self.directory, *parts)

    def lock(self) -> None:
        """One `up` or `down` at a time for a name. The file may vanish under a waiter, see `unlock`."""
        while True:
            os.makedirs(self.base, exist_ok=True)
            fd = -1
            with contextlib.suppress(FileNotFoundError):
                fd = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(fd, fcntl.LOCK_EX)
                if os.fstat(fd).st_ino == os.stat(self._lock_path).st_ino:
                    self.lock_fd = fd
                    return
            if fd >= 0:
                os.close(fd)

    def unlock(self) -> None:
        """Removes the lock file while it is still held, and the directory of all labs if it is empty."""
        with contextlib.suppress(OSError):
            os.unlink(self._lock_path)
            os.rmdir(self.base)
        os.close(self.lock_fd)

    def state(self) -> State | None:
        """What was saved last; None when there is no lab."""
        try:
            with open(self.path("state.json")) as file:
                return State(**json.load(file))
        except (OSError, ValueError, TypeError):
            return None

    def save(self, state: State) -> None:
        """Replaces the state file in one step."""
        temporary = self.path("state.json.tmp")
        with open(temporary, "w") as file:
            json.dump(asdict(state), file, indent=1)
        os.rename(temporary, self.path("state.json"))

    def running(self) -> State | None:
        """The state of a lab that is up; None for any other."""
        state = self.state()
        if state is None or not state.ready or start_time(state.leader) != state.leader_start:
            return None
        return state

    def booting(self) -> bool:
        """Whether a keeper is about to bring it up."""
        state = self.state()
        return state is not None and not state.ready and start_time(state.keeper) == state.keeper_start

    def wait_running(self, timeout: float = 30.0) -> State:
        """The state of a lab that is up; waits while it boots or reboots.

        :raises LabError: there is none, or it did not come up in `timeout` seconds.
        """
        end = time.monotonic() + timeout
        while True:
            if (running := self.running()) is not None:
                return running
            state = self.state()
            if state is None or start_time(state.keeper) != state.keeper_start or time.monotonic() > end:
                raise LabError(f"{self.name} is not up")
            time.sleep(_POLL)

    def destroy(self) -> None:
        """Kills every process of the lab and removes its groups and its directory.

        :raises LabError: something is left; the text says what.
        """
        problems = []
        if not cgroups.kill(self.name):
            problems.append(f"processes left: {sorted(cgroups.pids(self.name))}")
        problems += cgroups.remove(self.name)
        with open("/proc/self/mountinfo") as file:
            places = [line.split()[4] for line in file]
        held = [place for place in places if (place + "/").startswith(self.directory + "/")]
        if held:  # its mounts are private, so this cannot be; but nothing is ever removed through a mount
            problems.append(f"mounts in the host namespace, not removing {self.directory}: {held}")
        elif os.path.isdir(self.directory):
            shutil.rmtree(self.directory)
        if problems:
            raise LabError("; ".join(problems))


def names(base: str) -> list[str]:
    """The labs below a directory."""
    return sorted(n for n in (os.listdir(base) if os.path.isdir(base) else []) if not n.startswith("."))


def read_text(path: str) -> str:
    """A file's text, whatever its bytes."""
    with open(path, errors="replace") as file:
        return file.read()
