"""How many workers "auto" is under a real quota."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_V1 = Path("/sys/fs/cgroup/cpu")
_V2 = Path("/sys/fs/cgroup")


@pytest.fixture
def half_a_cpu() -> Iterator[Path]:
    """A real control group, of whichever version is here, with a quota of half a CPU."""
    legacy = (_V1 / "cpu.shares").exists()
    group = (_V1 if legacy else _V2) / f"ajhost-test-{os.getpid()}"
    try:
        group.mkdir()
        if legacy:
            (group / "cpu.cfs_quota_us").write_text("50000")
        else:
            (group / "cpu.max").write_text("50000 100000")
    except OSError as error:
        if group.is_dir():
            group.rmdir()
        pytest.skip(f"no control group can be made here: {error}")
    yield group
    group.rmdir()


def test_auto_is_one_worker_under_a_real_quota_of_half_a_cpu(half_a_cpu: Path) -> None:
    program = (
        "import os, pathlib\n"
        f"pathlib.Path({str(half_a_cpu / 'cgroup.procs')!r}).write_text(str(os.getpid()))\n"
        "from ajhost.settings.values import WorkerSettings\n"
        "print(WorkerSettings().count)\n"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout == "1\n"
