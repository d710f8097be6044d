"""Counts the CPUs that this process may use, the default of `workers.count`: the smaller of its CPU affinity and the
CPU quota of its control groups.

In a container with a quota, the affinity still has every CPU of the machine. With one worker for each, the workers
would use up the quota early in each period, and would be throttled until the next. Both versions of control groups are
read: `cpu.max` of version 2, `cpu.cfs_quota_us` of version 1. A group's quota bounds its descendants, so the smallest
quota among all ancestors counts.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from ajhost.settings.control_groups import control_groups

_PROCESS = Path("/proc/self")


def usable_cpus() -> int:
    """Returns the smaller of the CPUs in the affinity and the quota, rounded up; at least 1."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except OSError:  # a seccomp filter forbids the call
        cpus = os.cpu_count() or 1
    quota = cpu_quota(_PROCESS)
    return cpus if quota is None else max(1, min(cpus, math.ceil(quota)))


def cpu_quota(process: Path) -> float | None:
    """Returns the smallest CPU quota of a process's control groups; None without one. `process`: its place in /proc."""
    quotas = [quota for group in control_groups(process, "cpu") if (quota := _quota_of(group)) is not None]
    return min(quotas, default=None)


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
