"""What dead workers have left, in a process that becomes its parent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ajhost.adapters.linux import stray_processes


def test_orphans_are_reaped_at_the_second_look_and_what_is_known_is_left() -> None:
    script = """
import os, select
from ajhost.adapters.linux import proc, stray_processes

def dead():
    pid = os.fork()
    if pid == 0:
        os._exit(3)
    pidfd = os.pidfd_open(pid)
    select.select([pidfd], [], [])
    return pid

alive = os.fork()
if alive == 0:
    select.select([], [], [])
ours, orphan = dead(), dead()
orphans = stray_processes.StrayProcesses(lambda: ({ours}, ()))
orphans.reap()
assert proc.children() == {alive, ours, orphan}
late = dead()
orphans.reap()
assert proc.children() == {alive, ours, late}
orphans.reap()
assert proc.children() == {alive, ours}
os.kill(alive, 9)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(stray_processes.__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
