"""How many CPUs this process may use: the smaller of its CPU affinity and the CPU quota of its control groups.

In a container with a quota, the affinity still has every CPU of the machine. With one worker for each, the quota would
be used up early in each period, and all workers would be throttled until the next. Both versions of control groups are
read (cgroups(7)): `cpu.max` of version 2, `cpu.cfs_quota_us` of version 1. A group's quota bounds its descendants, so
the smallest quota among all ancestors counts.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_PROCESS = Path("/proc/self")


def usable_cpus() -> int:
    """The smaller of the number of CPUs in the affinity and the quota, rounded up; at least 1."""
    cpus = len(os.sched_getaffinity(0))
    quota = cpu_quota(_PROCESS)
    return cpus if quota is None else max(1, min(cpus, math.ceil(quota)))


def cpu_quota(process: Path) -> float | None:
    """The smallest quota in CPUs of a process's control groups; None without one. `process`: its place in /proc."""
    quotas = [quota for group in _cpu_groups(process) if (quota := _quota_of(group)) is not None]
    return min(quotas, default=None)


def _cpu_groups(process: Path) -> Iterator[Path]:
    """The directories of the process's control groups with a CPU controller, and of their ancestors."""
    try:
        groups = (process / "cgroup").read_text().splitlines()
        mounts = (process / "mountinfo").read_text().splitlines()
    except OSError:
        return
    for line in mounts:
        left, _, right = line.partition(" - ")
        fields, (kind, *_, options) = left.split(), right.split()
        root, place = _unescaped(fields[3]), Path(_unescaped(fields[4]))
        for group in groups:
            _, controllers, path = group.split(":", 2)
            unified = kind == "cgroup2" and not controllers
            legacy = kind == "cgroup" and "cpu" in controllers.split(",") and "cpu" in options.split(",")
            if unified or legacy:
                yield from _ancestry(place, root, path)


def _ancestry(place: Path, root: str, path: str) -> Iterator[Path]:
    """The directories of group `path` and its ancestors, up to `place`, where group `root` is mounted."""
    inside = path.removeprefix(root.rstrip("/")) if path.startswith(root) else ""
    group = place / inside.strip("/")
    if not group.is_dir():  # outside of the part of the hierarchy that is mounted in this container
        group = place
    yield group
    while group != place:
        group = group.parent
        yield group


def _unescaped(field: str) -> str:
    """mountinfo writes blanks and backslashes in octal (proc(5))."""
    return field.encode().decode("unicode_escape") if "\\" in field else field


def _quota_of(group: Path) -> float | None:
    try:
        quota, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (group / "cpu.cfs_quota_us").read_text().strip()
            period = (group / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    # "max" in version 2, -1 in version 1: none
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() and int(period) else None
