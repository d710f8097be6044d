"""What the kernel refuses is told with the limit behind it, its value, and what raises it."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys

import pytest

from ajhost.adapters.linux import os_error_texts
from tests.support.control_group import control_group

FORKS = """
import os, resource, sys, time
from ajhost.adapters.linux import os_error_texts
{prepare}
try:
    while os.fork():
        pass
    time.sleep(60)
except OSError as error:
    print(os_error_texts.explained(error), flush=True)
os.killpg(0, 9)
"""
AS_ANOTHER = """
resource.setrlimit(resource.RLIMIT_NPROC, (4, 4))
os.setgroups(())
os.setresgid(54321, 54321, 54321)
os.setresuid(54321, 54321, 54321)
"""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root limits others")


def said(prepare: str) -> str:
    """What a process says that forks until it is refused; `prepare` runs before, once it has imported what it needs."""
    command = [sys.executable, "-c", FORKS.format(prepare=prepare)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, start_new_session=True)
    return done.stdout.strip()


@needs_root
def test_a_fork_that_a_control_group_refuses_is_told_with_the_group() -> None:
    limits = {"pids.max": "4"}
    with control_group("pids", limits, limits) as group:
        text = said(f"open('{group}/cgroup.procs', 'w').write('0')")
        assert f"{group}/pids.max is 4, 4 are there: TasksMax=, --pids-limit" in text


@needs_root
def test_a_fork_that_the_users_limit_refuses_is_told_with_user_and_limit() -> None:
    assert said(AS_ANOTHER) == (
        "Resource temporarily unavailable (user 54321 may have 4 processes, 4 are there: ulimit -u, LimitNPROC=)"
    )


@pytest.mark.parametrize(
    ("number", "limit", "words"),
    [
        (errno.EFBIG, resource.RLIMIT_FSIZE, "less than a ledger: ulimit -f, LimitFSIZE="),
        (errno.EMFILE, resource.RLIMIT_NOFILE, "ulimit -n, LimitNOFILE="),
        (errno.ENOMEM, resource.RLIMIT_AS, "MiB: ulimit -v, LimitAS="),
        (errno.EROFS, None, "a read-only mount"),
        (errno.EPERM, None, "a seccomp filter"),
    ],
)
def test_a_limit_of_this_process_is_told_with_its_value(number: int, limit: int | None, words: str) -> None:
    before = None if limit is None else resource.getrlimit(limit)
    try:
        if limit is not None and before is not None:
            resource.setrlimit(limit, (1 << 34, before[1]) if before[1] == -1 else before)
        assert words in os_error_texts.explained(OSError(number, os.strerror(number)))
    finally:
        if limit is not None and before is not None:
            resource.setrlimit(limit, before)


BEHIND = """
import ctypes, os, subprocess, sys, threading, time
from ajhost.adapters.linux import os_error_texts
open({group!r} + "/cgroup.procs", "w").write("0")
def sleep():
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
def fork():
    subprocess.Popen(["sleep", "60"])
for refused in (sleep, fork):
    try:
        while True:
            refused()
    except (OSError, RuntimeError) as error:
        print(os_error_texts.limit_behind(error), flush=True)
os.killpg(0, 9)
"""


@needs_root
def test_a_thread_and_a_child_that_are_refused_to_anybodys_code_are_told_with_the_limit() -> None:
    limits = {"pids.max": "6"}
    with control_group("pids", limits, limits) as group:
        command = [sys.executable, "-c", BEHIND.format(group=str(group))]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, start_new_session=True)
        told = f"{group}/pids.max is 6, 6 are there: TasksMax=, --pids-limit"
        assert done.stdout.splitlines() == [told, told]


def test_an_error_of_anybodys_code_is_put_down_to_no_limit_that_it_did_not_meet() -> None:
    assert os_error_texts.limit_behind(OSError(errno.EMFILE, "")).endswith("ulimit -n, LimitNOFILE=")
    for error in (
        BlockingIOError(errno.EAGAIN, "a socket that has nothing to read"),
        RuntimeError("anything"),
        FileNotFoundError(errno.ENOENT, ""),
        OSError("no number"),
    ):
        assert os_error_texts.limit_behind(error) == ""


def test_an_error_without_a_file_is_told_by_its_call() -> None:
    with pytest.raises(OSError, match="Invalid") as error:
        os.pidfd_open(0)
    assert os_error_texts.described(error.value) == "os.pidfd_open(0): Invalid argument"
