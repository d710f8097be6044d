"""`uml`: one command under systemd as PID 1 of a kernel of its own (user-mode-linux).

There control groups are of version 2 with memory, cpu, io and pids controllers, whatever the machine has. It takes
seconds, and has one CPU.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from scripts.lib.systemd_lab import cgroups, linux, overlay
from scripts.lib.systemd_lab.linux import LabError
from scripts.lib.systemd_lab.overlay import RootOptions, write_file
from scripts.lib.systemd_lab.state import Lab, read_text

_PROGRAM = os.environ.get("SYSTEMD_LAB_UML", "/usr/bin/linux.uml")
_RESULTS = ("out", "err", "rc")
_CONTAINER_SIGNS = ("/.dockerenv", "/run/.containerenv")
_NEEDLESS_UNITS = (
    "systemd-udevd-kernel.socket",
    "systemd-udevd-control.socket",
    "systemd-udev-settle.service",
    "systemd-hwdb-update.service",
)
# PID 1 of the guest before systemd: an overlay inside the guest, since hostfs gives every new file to root and has no
# extended attributes. 313 is finit_module(2) on x86-64.
_INIT = """#!/usr/bin/python3 -IS
import ctypes, os, subprocess
libc = ctypes.CDLL(None, use_errno=True)
def mnt(*a): subprocess.run(["/bin/mount", *a], check=True)
fd = os.open("/lab/overlay.ko", os.O_RDONLY)
if libc.syscall(313, fd, b"", 0) != 0: raise OSError(ctypes.get_errno(), "overlay.ko")
mnt("-t", "tmpfs", "-o", "mode=755", "lab", "/lab/t")
for d in ("u", "w", "r"): os.mkdir("/lab/t/" + d, 0o755)
mnt("-t", "overlay", "-o", "lowerdir=/,upperdir=/lab/t/u,workdir=/lab/t/w", "lab", "/lab/t/r")
mnt("--bind", "/lab/out", "/lab/t/r/lab/out")
for b in open("/lab/binds").read().split(chr(10)):
    if b: mnt("--bind", b, "/lab/t/r" + b)
os.chdir("/lab/t/r")
subprocess.run(["/usr/sbin/pivot_root", ".", "lab/old"], check=True)
os.chroot(".")
subprocess.run(["/bin/umount", "-l", "/lab/old"])
os.execv("/lib/systemd/systemd", ["/lib/systemd/systemd"])
"""
_UNIT = """[Unit]
Description=systemd-lab job
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/sh /lab/job.sh
StandardOutput=append:/lab/out/out
StandardError=append:/lab/out/err
TimeoutStartSec=infinity
ExecStopPost=/bin/sh -c 'echo $EXIT_CODE $EXIT_STATUS > /lab/out/rc; systemctl poweroff -ff >/dev/null 2>&1'
"""


@dataclass(frozen=True, slots=True)
class KernelOptions:
    """What the command line says of the guest. `memory` as the kernel's `mem=` takes it; `timeout` in seconds."""

    root: RootOptions
    memory: str
    timeout: float
    command: Sequence[str]


def run(lab: Lab, options: KernelOptions, *, quiet: bool) -> int:
    """Runs the command in a guest, prints what it printed, and returns its status: 128 + n after a signal.

    :raises LabError: the guest did not boot, or the command left no result.
    """
    modules = _modules()
    lab.lock()
    lab.destroy()
    os.makedirs(lab.path("m"), mode=0o700)
    began = time.monotonic()
    try:
        with linux.stop_signals_raise():
            _boot(lab, options, modules)
            _print_results(lab)
            code = _status(lab)
    except BaseException as error:
        with contextlib.suppress(OSError):
            print(read_text(lab.path("console.log"))[-3000:], file=sys.stderr)
        raise LabError(f"uml {lab.name}: {error}") from error
    finally:
        lab.destroy()
        lab.unlock()
    if not quiet:
        print(f"{lab.name}: uml, {time.monotonic() - began:.1f} s in all, rc {code}", file=sys.stderr)
    return code


def _modules() -> str:
    if not os.path.exists(_PROGRAM):
        raise LabError(f"{_PROGRAM} is missing: apt-get install user-mode-linux")
    base = os.path.join(os.path.dirname(os.path.dirname(_PROGRAM)), "lib/uml/modules")
    return os.path.join(base, max(os.listdir(base)))


def _boot(lab: Lab, options: KernelOptions, modules: str) -> None:
    """Returns when the guest has ended."""
    console = os.open(lab.path("console.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    go_reader, go_writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.close(go_writer)
            if not os.read(go_reader, 1):  # the caller died before this process was in its control group
                os._exit(126)
            linux.die_with_parent()
            linux.default_stop_signals()
            os.dup2(console, 1)
            os.dup2(console, 2)
            _keep(lab, options, modules)
            os._exit(0)
        except BaseException as error:
            linux.complain(f"keeper: {error!r}")
        os._exit(126)
    os.close(go_reader)
    cgroups.join(lab.name, "keeper", pid)
    os.write(go_writer, b"g")
    if not select.select([os.pidfd_open(pid)], [], [], options.timeout)[0]:
        raise LabError(f"not done after {options.timeout} s")


def _keep(lab: Lab, options: KernelOptions, modules: str) -> None:
    """Private mounts, then the guest, whose results are copied out of its root."""
    os.setsid()
    linux.enter_private_mounts()
    place = lab.path("m")
    upper, root = f"{place}/u", f"{place}/r"
    overlay.mount_tmpfs(place, options.root.size, "u", "w", "r", "tmp")
    overlay.fill_upper(upper, lab.name, options.root)
    _fill_guest(upper, options, modules)
    overlay.mount_overlay(upper, f"{place}/w", root)
    write_file(f"{root}/lab/binds", "\n".join(_bind(root, options.root)))
    subprocess.run(
        [
            _PROGRAM,
            f"mem={options.memory}",
            "rootfstype=hostfs",
            f"rootflags={root}",
            "rw",
            "init=/lab/init",
            "con=null",
            "con0=null,fd:1",
            "umid=lab",
            f"uml_dir={place}/tmp",
            "quiet",
        ],
        stdin=subprocess.DEVNULL,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": f"{place}/tmp", "HOME": place},
        check=False,
    )
    for name in _RESULTS:
        with contextlib.suppress(OSError):
            shutil.copy(f"{root}/lab/out/{name}", lab.path(name))


def _fill_guest(upper: str, options: KernelOptions, modules: str) -> None:
    for sign in _CONTAINER_SIGNS:  # systemd would take the guest for a container
        if os.path.exists(sign):
            os.makedirs(os.path.dirname(upper + sign), exist_ok=True)
            os.mknod(upper + sign, stat.S_IFCHR | 0o600, os.makedev(0, 0))
    for directory in ("t", "out", "old"):
        os.makedirs(f"{upper}/lab/{directory}", 0o755)
    overlay.mask_unit(upper, *_NEEDLESS_UNITS)
    shutil.copy(os.path.join(modules, "kernel/fs/overlayfs/overlay.ko"), f"{upper}/lab/overlay.ko")
    write_file(f"{upper}/lab/init", _INIT, 0o755)
    units = f"{upper}/etc/systemd/system"
    write_file(f"{units}/systemd-lab-job.service", _UNIT)
    os.makedirs(f"{units}/multi-user.target.wants", exist_ok=True)
    os.symlink("../systemd-lab-job.service", f"{units}/multi-user.target.wants/systemd-lab-job.service")
    exports = "export HOME=/root USER=root SYSTEMD_PAGER= SYSTEMD_COLORS=0; cd /"
    write_file(f"{upper}/lab/job.sh", f"{exports}\n{shlex.join(options.command)}\n")


def _bind(root: str, options: RootOptions) -> list[str]:
    """Mounts what was asked for below the guest's root; where, as the guest sees it."""
    targets = []
    for bind in overlay.binds(options):
        os.makedirs(root + bind.target, exist_ok=True)
        linux.mount("--rbind", bind.source, root + bind.target)
        if bind.read_only:
            linux.mount("-o", "remount,bind,ro", root + bind.target)
        targets.append(bind.target)
    return targets


def _print_results(lab: Lab) -> None:
    for name, stream in (("out", sys.stdout), ("err", sys.stderr)):
        if os.path.exists(lab.path(name)):
            with open(lab.path(name), "rb") as source:
                shutil.copyfileobj(source, stream.buffer)
            stream.flush()


def _status(lab: Lab) -> int:
    try:
        how, status = read_text(lab.path("rc")).split()
        return int(status) if how == "exited" else 128 + int(getattr(signal, "SIG" + status, 0))
    except (OSError, ValueError):
        raise LabError("the guest left no result") from None
