"""`up`: a lab in a container. Its keeper is the one process outside of it, and runs systemd-nspawn."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import time
from dataclasses import dataclass

from scripts.lib.systemd_lab import cgroups, linux, overlay
from scripts.lib.systemd_lab.linux import LabError
from scripts.lib.systemd_lab.overlay import RootOptions
from scripts.lib.systemd_lab.state import Lab, State, read_text

_NEEDED = ("/usr/bin/systemd-nspawn", "/lib/systemd/systemd", "/bin/mount")
_REBOOT = 133
"""systemd-nspawn with --keep-unit ends so after a `systemctl reboot` inside (systemd 252, src/nspawn/nspawn.c)."""
_SOCKET_LIMIT = 100
"""Bytes of the longest path that leaves room in sockaddr_un on nspawn's side."""


@dataclass(frozen=True, slots=True)
class ContainerOptions:
    """What the command line says of the container."""

    root: RootOptions
    network: str
    cgroup: str
    syscalls: str
    capability: str
    nspawn_arguments: tuple[str, ...]
    init_arguments: tuple[str, ...]
    timeout: float


def up(lab: Lab, options: ContainerOptions, *, quiet: bool) -> int:
    """Boots the lab unless it is up; returns when systemd says that it is ready."""
    _check_prerequisites(options.root)
    began = time.monotonic()
    lab.lock()
    if lab.running() or lab.booting():
        state = lab.wait_running()
        if not quiet:
            print(f"{lab.name}: already up, leader {state.leader}, root /proc/{state.leader}/root")
        return 0
    lab.destroy()  # what a killed `up` left
    os.makedirs(lab.path("m"), mode=0o700)
    try:
        with linux.stop_signals_raise():
            leader = _boot(lab, options)
    except BaseException as error:
        with contextlib.suppress(OSError):
            print(read_text(lab.path("console.log"))[-3000:], file=sys.stderr)
        lab.destroy()
        lab.unlock()
        raise LabError(f"up {lab.name}: {error}") from error
    if not quiet:
        seconds = time.monotonic() - began
        print(f"{lab.name}: up in {seconds:.2f} s, leader {leader}, root /proc/{leader}/root")
    return 0


def _check_prerequisites(options: RootOptions) -> None:
    if os.geteuid() != 0:
        raise LabError("needs root")
    for program in _NEEDED:
        if not os.path.exists(program):
            raise LabError(f"{program} is missing: apt-get install systemd systemd-container dbus mount")
    for bind in overlay.binds(options):
        if not os.path.exists(bind.source):
            raise LabError(f"--bind source {bind.source} does not exist")


def _boot(lab: Lab, options: ContainerOptions) -> int:
    """Starts the keeper in the lab's control group, and waits for systemd; the process id of the lab's PID 1."""
    notify = _notify_socket(lab)
    console = os.open(lab.path("console.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    go_reader, go_writer = os.pipe2(os.O_CLOEXEC)
    report_reader, report_writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.close(go_writer)
            os.close(report_reader)
            if not os.read(go_reader, 1):  # `up` died before this process was in its control group
                os._exit(126)
            linux.default_stop_signals()
            os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
            os.dup2(console, 1)
            os.dup2(console, 2)
            os.close(lab.lock_fd)
            _Keeper(lab, options, notify, report_writer).run()
        except BaseException as error:
            linux.complain(f"keeper: {error!r}")
        os._exit(126)
    os.close(go_reader)
    os.close(report_writer)
    cgroups.join(lab.name, "keeper", pid)
    lab.save(State(pid, linux.start_time(pid), cgroup=options.cgroup, network=options.network))
    os.write(go_writer, b"g")
    if not select.select([report_reader], [], [], options.timeout)[0]:
        raise LabError(f"not ready after {options.timeout} s")
    if os.read(report_reader, 1) != b"r":
        raise LabError("nspawn ended before the system was up")
    state = lab.state()
    assert state is not None
    return state.leader


def _notify_socket(lab: Lab) -> socket.socket:
    # an abstract name would not reach nspawn's namespace with --network=private; a path does
    path = lab.path("notify")
    if len(path) > _SOCKET_LIMIT:
        raise LabError(f"--dir is too long for a unix socket: {path}")
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    notify.bind(path)
    return notify


class _Keeper:
    """Private mounts, then systemd-nspawn, and again systemd-nspawn after each reboot inside."""

    def __init__(self, lab: Lab, options: ContainerOptions, notify: socket.socket, report: int) -> None:
        state = lab.state()
        assert state is not None
        self._lab, self._options, self._notify, self._state = lab, options, notify, state
        self._report: int | None = report
        """The pipe on which `up` waits, until it has been told."""

    def run(self) -> None:
        """Returns when the lab has ended without asking for a reboot."""
        os.setsid()
        linux.enter_private_mounts()
        place = self._lab.path("m")
        os.makedirs("/run/systemd/nspawn", exist_ok=True)
        linux.mount("-t", "tmpfs", "-o", "mode=755", "systemd-lab", "/run/systemd/nspawn")  # it leaves files
        overlay.mount_tmpfs(place, self._options.root.size, "u", "w", "r")
        overlay.fill_upper(f"{place}/u", self._lab.name, self._options.root)
        overlay.mount_overlay(f"{place}/u", f"{place}/w", f"{place}/r")
        command = _nspawn_command(self._lab.name, f"{place}/r", self._options)
        while (status := self._run_once(command)) == _REBOOT:
            pass
        linux.complain(f"nspawn ended with {status}")

    def _run_once(self, command: list[str]) -> int:
        began, pid = time.monotonic(), self._start(command)
        pidfd, leader, notify = os.pidfd_open(pid), 0, self._notify.fileno()
        while pidfd not in (readable := select.select([notify, pidfd], [], [])[0]) or notify in readable:
            for line in self._notify.recv(65536).decode(errors="replace").splitlines():
                if line.startswith("X_NSPAWN_LEADER_PID="):
                    leader = int(line.partition("=")[2])
                elif line == "READY=1" and leader:
                    self._is_ready(leader, time.monotonic() - began)
        os.close(pidfd)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self._state.ready = False
        self._state.ended = None if status == _REBOOT else status
        self._lab.save(self._state)
        return status

    def _start(self, command: list[str]) -> int:
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "NOTIFY_SOCKET": self._lab.path("notify"),
            "LANG": "C.UTF-8",
        }
        if self._options.cgroup == "unified":
            environment["SYSTEMD_NSPAWN_UNIFIED_HIERARCHY"] = "1"
        pid = os.fork()
        if pid == 0:
            linux.die_with_parent()
            cgroups.join(self._lab.name, "box", os.getpid())
            os.execve(command[0], command, environment)
        return pid

    def _is_ready(self, leader: int, seconds: float) -> None:
        state = self._state
        state.leader, state.leader_start = leader, linux.start_time(leader)
        state.ready, state.boots, state.boot_s = True, state.boots + 1, round(seconds, 3)
        self._lab.save(state)
        if self._report is not None:
            with contextlib.suppress(OSError):  # `up` was killed: the lab stays, the next `up` finds it
                os.write(self._report, b"r")
            os.close(self._report)
            self._report = None


def _nspawn_command(name: str, root: str, options: ContainerOptions) -> list[str]:
    command = [
        "/usr/bin/systemd-nspawn",
        "--quiet",
        f"--directory={root}",
        f"--machine={name}",
        f"--hostname={name}",
        "--register=no",
        "--keep-unit",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        "--notify-ready=yes",
        "--console=read-only",
        "--kill-signal=SIGRTMIN+3",
        "--settings=no",
    ]
    if options.network == "private":
        command.append("--private-network")
    if options.syscalls:
        command.append(f"--system-call-filter={options.syscalls}")
    if options.capability:
        command.append(f"--capability={options.capability}")
    for bind in overlay.binds(options.root):
        option = "--bind-ro" if bind.read_only else "--bind"
        command.append(f"{option}={bind.source}:{bind.target}:rbind")
    return [*command, *options.nspawn_arguments, overlay.INIT_PATH, *options.init_arguments]
