"""The root file system of a lab: an overlay of this machine's root, whose upper layer hides and adds a few things."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from scripts.lib.systemd_lab.linux import mount

INIT_PATH = "/usr/local/lib/systemd-lab-init"
"""PID 1 of the container for its first millisecond."""

# vendor units that only cost time or noise in a container
_MASKED = (
    "getty.target",
    "getty-static.service",
    "console-getty.service",
    "getty@.service",
    "serial-getty@.service",
    "container-getty@.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    "cryptsetup.target",
    "veritysetup.target",
    "integritysetup.target",
    "systemd-pcrphase.service",
    "systemd-pcrphase-sysinit.service",
    "systemd-binfmt.service",
    "systemd-firstboot.service",
    "systemd-machine-id-commit.service",
    "systemd-random-seed.service",
    "systemd-journald-audit.socket",
    "systemd-initctl.socket",
    "systemd-udevd.service",
    "systemd-udev-trigger.service",
    "systemd-networkd-wait-online.service",
    "systemd-modules-load.service",
    "systemd-sysctl.service",
    "systemd-remount-fs.service",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "proc-sys-fs-binfmt_misc.automount",
    "kmod-static-nodes.service",
)
_KEPT_GENERATORS = {"systemd-run-generator", "systemd-debug-generator"}

# PID 1 of the container for its first millisecond.  nspawn leaves the v1 controllers
# read-only, so systemd would find no memory/cpu/pids controller; make them writable
# (they are rooted, by the cgroup namespace, in this lab's own cgroups), then become systemd.
_INIT = """#!/bin/sh
for c in /sys/fs/cgroup/*/; do
  case $c in */systemd/|*/unified/|*/cpuset/) continue;; esac
  [ -e "$c/cgroup.procs" ] && mount -o remount,bind,rw "$c" 2>/dev/null
done
exec /lib/systemd/systemd "$@"
"""
_GENERATORS = (
    "/lib/systemd/system-generators",
    "/usr/lib/systemd/system-generators",
    "/usr/local/lib/systemd/system-generators",
)


@dataclass(frozen=True, slots=True)
class RootOptions:
    """What the command line says of the root file system. A bind is `SRC` or `SRC:DST`."""

    binds: tuple[str, ...]
    read_only_binds: tuple[str, ...]
    masked: tuple[str, ...]
    keep_host_units: bool
    size: str


@dataclass(frozen=True, slots=True)
class Bind:
    """One bind mount of the lab."""

    source: str
    target: str
    read_only: bool


def checkout() -> tuple[str, ...]:
    """The git checkout in which the command was started, to be bound read-only at its own path; empty outside one."""
    git = subprocess.run(["git", "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=False)
    return (git.stdout.strip(),) if git.returncode == 0 else ()


def binds(options: RootOptions) -> Iterator[Bind]:
    """The bind mounts that were asked for, writable ones first."""
    for texts, read_only in ((options.binds, False), (options.read_only_binds, True)):
        for text in texts:
            source, _, target = text.partition(":")
            source = os.path.abspath(source)
            yield Bind(source, target or source, read_only)


def write_file(path: str, text: str, mode: int = 0o644) -> None:
    """Writes a file and the directories above it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)


def mask_unit(upper: str, *units: str) -> None:
    """Units that systemd must not start."""
    for unit in units:
        _link_to_null(f"{upper}/etc/systemd/system/{unit}")


def _link_to_null(path: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if not os.path.lexists(path):
        os.symlink("/dev/null", path)


def _hide(path: str) -> None:
    """An upper directory that hides the machine's directory of that name."""
    os.makedirs(path, exist_ok=True)
    os.setxattr(path, "trusted.overlay.opaque", b"y")


def _hide_host_units(upper: str) -> None:
    """Nothing that the machine's administrator or packages enabled is started."""
    _hide(f"{upper}/etc/systemd/system")
    for level in "S0123456":
        if os.path.isdir(f"/etc/rc{level}.d"):
            _hide(f"{upper}/etc/rc{level}.d")
    generators = {name for d in _GENERATORS if os.path.isdir(d) for name in os.listdir(d)}
    for generator in generators - _KEPT_GENERATORS:
        _link_to_null(f"{upper}/etc/systemd/system-generators/{generator}")


def fill_upper(upper: str, name: str, options: RootOptions) -> None:
    """Writes the upper layer of a lab that is called `name`."""
    if not options.keep_host_units:
        _hide_host_units(upper)
    mask_unit(upper, *_MASKED, *options.masked)
    default = f"{upper}/etc/systemd/system/default.target"
    if not os.path.lexists(default):
        os.symlink("/lib/systemd/system/multi-user.target", default)
    _hide(f"{upper}/var/log/journal")  # not the machine's journals
    write_file(f"{upper}/etc/fstab", "")
    write_file(f"{upper}/etc/hostname", name + "\n")
    write_file(f"{upper}/etc/machine-id", os.urandom(16).hex() + "\n", 0o444)
    write_file(f"{upper}/etc/hosts", f"127.0.0.1 localhost {name}\n::1 localhost\n")
    # /run is a fresh tmpfs in the container, so the init that starts it lies elsewhere
    write_file(upper + INIT_PATH, _INIT, 0o755)
    for directory in ("/etc", "/usr", "/var", "/usr/local", "/var/log"):
        if os.path.isdir(upper + directory):
            os.chmod(upper + directory, 0o755)


def mount_tmpfs(place: str, size: str, *directories: str) -> None:
    """The tmpfs that takes every write of a lab, with directories in it."""
    mount("-t", "tmpfs", "-o", f"mode=755,size={size}", "systemd-lab", place)
    for directory in directories:
        os.mkdir(f"{place}/{directory}", 0o755)


def mount_overlay(upper: str, work: str, root: str) -> None:
    """The root file system of a lab."""
    mount("-t", "overlay", "-o", f"lowerdir=/,upperdir={upper},workdir={work}", "systemd-lab", root)
