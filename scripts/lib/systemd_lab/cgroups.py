"""The control groups of a lab, on version 1, version 2 and both at once."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time

_ROOT = "/sys/fs/cgroup"
_TOP = "systemd-lab"
V1, V2 = "v1", "v2"


def hierarchies() -> list[tuple[str, str]]:
    """The mount point and the version of each hierarchy; cpuset is left alone, as its groups start without a CPU."""
    found = []
    with open("/proc/self/mountinfo") as file:
        for line in file:
            left, right = line.rstrip("\n").split(" - ", 1)
            place, kind = left.split()[4], right.split()[0]
            if not (place + "/").startswith(_ROOT + "/"):
                continue
            if kind == "cgroup2":
                found.append((place, V2))
            elif kind == "cgroup" and "cpuset" not in right.split()[2].split(","):
                found.append((place, V1))
    return found


def _groups(name: str) -> list[str]:
    return [os.path.join(place, _TOP, name) for place, _ in hierarchies()]


def _make(group: str) -> None:
    # another lab's `down` may remove the shared parent, empty still, between the making of the two: then once more
    while True:
        with contextlib.suppress(FileNotFoundError):
            os.makedirs(group, exist_ok=True)
            return


def _delegate(place: str, name: str) -> None:
    """Version 2: hands the controllers that there are down to the lab."""
    for parent in (place, os.path.join(place, _TOP), os.path.join(place, _TOP, name)):
        with open(os.path.join(parent, "cgroup.controllers")) as file:
            controllers = file.read().split()
        for controller in controllers:
            with (
                contextlib.suppress(OSError),
                open(os.path.join(parent, "cgroup.subtree_control"), "w") as control,
            ):
                control.write("+" + controller)


def join(name: str, leaf: str, pid: int) -> None:
    """Moves a process to `<hierarchy>/systemd-lab/<name>/<leaf>`, which is made on the way.

    The keeper and the container have a leaf each: on version 2 a group that has processes cannot pass controllers down.
    """
    for place, version in hierarchies():
        group = os.path.join(place, _TOP, name, leaf)
        _make(group)
        if version == V2:
            _delegate(place, name)
        with open(os.path.join(group, "cgroup.procs"), "w") as file:
            file.write(str(pid))


def join_beside(leader_groups: list[str], leaf: str) -> list[str]:
    """Moves this process beside a lab's PID 1, whose /proc/PID/cgroup lines these are; what could not be joined."""
    problems = []
    for place, version in hierarchies():
        names = os.path.basename(place).split(",")
        for line in leader_groups:
            _, controllers, path = line.split(":", 2)
            same = controllers in names or controllers == f"name={names[0]}"
            same = same or set(controllers.split(",")) == set(names)
            if not (same if version == V1 else controllers == ""):
                continue
            parent = os.path.dirname(path) if path.endswith("/init.scope") else path
            group = f"{place}{parent}/{leaf}"
            try:
                os.makedirs(group, exist_ok=True)
                with open(group + "/cgroup.procs", "w") as file:
                    file.write("0")
            except OSError as error:
                problems.append(f"cgroup {group}: {error}")
    return problems


def pids(name: str) -> set[int]:
    """Every process of a lab."""
    found: set[int] = set()
    for top in _groups(name):
        for group, _, _ in os.walk(top):
            with contextlib.suppress(OSError), open(os.path.join(group, "cgroup.procs")) as file:
                found.update(int(pid) for pid in file.read().split() if pid != "0")
    return found


def kill(name: str, timeout: float = 10.0) -> bool:
    """SIGKILL for every process of the lab but this one; True when none is left."""
    me, end = os.getpid(), time.monotonic() + timeout
    while True:
        for top in _groups(name):
            switch = os.path.join(top, "cgroup.kill")
            if os.path.exists(switch):
                with contextlib.suppress(OSError), open(switch, "w") as file:
                    file.write("1")
        left = pids(name) - {me}
        if not left:
            return True
        for pid in left:  # where there is version 1 only, and processes that version 2 does not list
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > end:
            return False
        time.sleep(0.01)


def remove(name: str) -> list[str]:
    """Removes the groups of a lab without processes; what could not be removed, and why."""
    problems = []
    for top in _groups(name):
        for group, _, _ in os.walk(top, topdown=False):
            problem = _remove(group)
            if problem is not None:
                problems.append(f"{group}: {problem}")
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(top))  # the parent that all labs share, when it is empty
    return problems


def _remove(group: str) -> str | None:
    for _ in range(100):
        try:
            os.rmdir(group)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != errno.EBUSY:
                return error.strerror
            time.sleep(0.01)  # its last process is not reaped yet
        else:
            return None
    return "busy"
