"""`exec`: one command inside a running lab, in its namespaces and control groups, with signals and status passed on."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from scripts.lib.systemd_lab import cgroups, linux
from scripts.lib.systemd_lab.linux import LabError
from scripts.lib.systemd_lab.state import Lab, State, read_text

_PASSED_ON = {
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
}
_FAILED, _CANNOT_RUN, _NOT_FOUND = 125, 126, 127
"""Exit statuses by env(1)'s convention."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command for the lab. `environment` has `KEY=VALUE`, or `KEY` for the caller's own value."""

    arguments: Sequence[str]
    user: str | None
    directory: str
    environment: Sequence[str]


@dataclass(frozen=True, slots=True)
class _User:
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def execute(lab: Lab, command: Command) -> NoReturn:
    """Runs the command, and ends this process as it ended: 128 + n after a signal.

    :raises LabError: the lab is not up.
    """
    state = lab.wait_running()
    pidfd = os.pidfd_open(state.leader)
    if linux.start_time(state.leader) != state.leader_start:
        raise LabError(f"{lab.name} is not up")
    leader_groups = read_text(f"/proc/{state.leader}/cgroup").splitlines()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
    ready_reader, ready_writer = os.pipe2(os.O_CLOEXEC)
    middle = os.fork()
    if middle == 0:
        # a process joins the lab's namespaces, and only its child is in the process id namespace
        linux.die_with_parent()
        try:
            for problem in cgroups.join_beside(leader_groups, "lab-exec"):
                linux.complain(problem)
            child = _fork_inside(state, pidfd, command, mask)
            os.write(ready_writer, b"r")
            _relay(child)
        except BaseException as error:
            linux.complain(f"exec: {error}")
        os._exit(_FAILED)
    os.close(ready_writer)
    os.read(ready_reader, 1)
    _relay(middle)


def _fork_inside(state: State, pidfd: int, command: Command, mask: set[int]) -> int:
    flags = linux.CLONE_NEWNS | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC
    flags |= linux.CLONE_NEWPID | linux.CLONE_NEWCGROUP
    if state.network == "private":
        flags |= linux.CLONE_NEWNET
    linux.enter_namespaces(pidfd, flags)
    os.chdir(command.directory)
    user = None if command.user is None else _look_up(command.user)
    environment = _environment(command, user)
    child = os.fork()
    if child == 0:
        linux.die_with_parent()
        if user is not None:
            os.setgroups([user.gid, *user.groups])
            os.setgid(user.gid)
            os.setuid(user.uid)
            linux.die_with_parent()  # a change of credentials clears it (prctl(2))
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        try:
            os.execvpe(command.arguments[0], list(command.arguments), environment)
        except OSError as error:
            linux.complain(f"exec {command.arguments[0]}: {error.strerror}")
            os._exit(_NOT_FOUND if error.errno == errno.ENOENT else _CANNOT_RUN)
    return child


def _look_up(name: str) -> _User:
    """A user of the lab, by its own files: the standard library may have read the machine's already."""
    with open("/etc/passwd") as file:
        rows = [line.rstrip("\n").split(":") for line in file if line.startswith(name + ":")]
    if not rows:
        raise LabError(f"no user {name} in the lab")
    with open("/etc/group") as file:
        groups = [line.rstrip("\n").split(":") for line in file]
    more = tuple(int(group[2]) for group in groups if name in group[3].split(","))
    return _User(int(rows[0][2]), int(rows[0][3]), more, rows[0][5])


def _environment(command: Command, user: _User | None) -> dict[str, str]:
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root" if user is None else user.home,
        "USER": command.user or "root",
        "LOGNAME": command.user or "root",
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
        "TERM": os.environ.get("TERM", "dumb"),
        "SYSTEMD_PAGER": "",
        "SYSTEMD_COLORS": "0",
        "container": "systemd-nspawn",
    }
    for text in command.environment:
        key, given, value = text.partition("=")
        environment[key] = value if given else os.environ.get(key, "")
    return environment


def _relay(child: int) -> NoReturn:
    """Waits for a child, passes signals on to it, and ends as it ended."""
    awaited = _PASSED_ON | {signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        caught = signal.sigtimedwait(awaited, 1.0)
        if caught is not None and caught.si_signo != signal.SIGCHLD:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, caught.si_signo)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)
