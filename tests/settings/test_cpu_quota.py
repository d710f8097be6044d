"""How many workers "auto" is under a real quota."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_auto_is_one_worker_under_a_real_quota_of_half_a_cpu(half_a_cpu: Path) -> None:
    program = (
        "import os, pathlib\n"
        f"pathlib.Path({str(half_a_cpu / 'cgroup.procs')!r}).write_text(str(os.getpid()))\n"
        "from ajhost.settings.sections import WorkerSettings\n"
        "print(WorkerSettings().count)\n"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout == "1\n"
