"""How many workers "auto" is: the affinity, cut down by the quotas of both versions of control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ajhost.settings.cpus import cpu_quota, usable_cpus
from ajhost.settings.sections import WorkerSettings


class Machine:
    """A /proc/self and the control groups that it names, as files."""

    def __init__(self, directory: Path) -> None:
        self.process = directory / "proc"
        self.process.mkdir()
        self.mounts = directory / "cgroup"

    def unified(self, path: str, root: str = "/", **limits: str) -> None:
        """Version 2: `limits` are the texts of `cpu.max`, by the group's path below the mount with `_` for `/`."""
        self._write(f"0::{path}\n", f"30 24 0:26 {root} {self.mounts} rw - cgroup2 cgroup2 rw,nsdelegate\n")
        for name, text in limits.items():
            group = self.mounts / name.strip("_").replace("_", "/")
            group.mkdir(parents=True, exist_ok=True)
            (group / "cpu.max").write_text(text + "\n")

    def legacy(self, path: str, root: str = "/", **limits: tuple[int, int]) -> None:
        """Version 1: quota and period."""
        self._write(
            f"5:cpuacct:{path}\n4:cpu,cpuset:{path}\n0::/\n",
            f"31 24 0:27 {root} {self.mounts} rw - cgroup cgroup rw,cpu,cpuset\n",
        )
        for name, (quota, period) in limits.items():
            group = self.mounts / name.strip("_").replace("_", "/")
            group.mkdir(parents=True, exist_ok=True)
            (group / "cpu.cfs_quota_us").write_text(f"{quota}\n")
            (group / "cpu.cfs_period_us").write_text(f"{period}\n")

    def _write(self, groups: str, mounts: str) -> None:
        (self.process / "cgroup").write_text(groups)
        (self.process / "mountinfo").write_text(f"24 1 8:1 / / rw - ext4 /dev/root rw\n{mounts}")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_without_a_quota_there_is_none(machine: Machine) -> None:
    machine.unified("/a", _a="max 100000")
    assert cpu_quota(machine.process) is None


def test_the_quota_of_version_2_is_read(machine: Machine) -> None:
    machine.unified("/a", _a="50000 100000")
    assert cpu_quota(machine.process) == 0.5


def test_the_tightest_quota_of_all_ancestors_counts(machine: Machine) -> None:
    machine.unified("/a/b", _="400000 100000", _a="150000 100000", _a_b="max 100000")
    assert cpu_quota(machine.process) == 1.5


def test_in_a_container_the_mount_is_the_group(machine: Machine) -> None:
    machine.unified("/docker/x", root="/docker/x", _="250000 100000")
    assert cpu_quota(machine.process) == 2.5


def test_a_group_that_this_container_cannot_see_is_the_mount(machine: Machine) -> None:
    machine.unified("/../../kube/x", _="200000 100000")
    assert cpu_quota(machine.process) == 2.0


def test_the_quota_of_version_1_is_read(machine: Machine) -> None:
    machine.legacy("/a", _=(-1, 100000), _a=(30000, 20000))
    assert cpu_quota(machine.process) == 1.5


@pytest.mark.parametrize("text", ["", "what", "0 0", "5 x", "-1 100000"])
def test_a_text_that_is_no_quota_is_none(machine: Machine, text: str) -> None:
    machine.unified("/a", _a=text)
    assert cpu_quota(machine.process) is None


def test_without_files_the_affinity_counts(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None
    assert 1 <= usable_cpus() <= len(os.sched_getaffinity(0))
    assert WorkerSettings().count == usable_cpus()
