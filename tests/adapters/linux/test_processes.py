"""Process primitives on real processes."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ajhost.adapters.linux import processes
from ajhost.adapters.linux.processes import StopResult
from tests.support.processes import thread_states

_LIMIT = 10.0


@contextmanager
def _child(act: Callable[[], None]) -> Iterator[tuple[int, int]]:
    """A forked child that does `act`, as (pid, pidfd); killed and reaped at the end."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
        finally:
            os._exit(0)
    pidfd = os.pidfd_open(pid)
    try:
        yield pid, pidfd
    finally:
        processes.pidfd_signal(pidfd, signal.SIGKILL)
        _ended(pidfd)
        processes.wait_status(pidfd)
        os.close(pidfd)


def _ended(pidfd: int) -> None:
    """Waits until the process of a pidfd has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(_LIMIT * 1000), "the process does not end"


def _die(number: signal.Signals) -> None:
    if number != signal.SIGKILL:  # faulthandler, which pytest enables, would report it
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("act", "text"),
    [
        (lambda: os._exit(0), "exit status 0"),
        (lambda: os._exit(3), "exit status 3"),
        (lambda: _die(signal.SIGKILL), "SIGKILL"),
        (lambda: _die(signal.SIGSEGV), "SIGSEGV"),
        (lambda: os.kill(os.getpid(), 40), "signal 40"),
    ],
)
def test_the_status_of_a_child_says_how_it_ended(act: Callable[[], None], text: str) -> None:
    with _child(act) as (_, pidfd):
        _ended(pidfd)
        ended = processes.wait_status(pidfd)
        assert ended is not None
        assert ended.text.removesuffix(" (core dumped)") == text


def test_a_child_that_runs_has_no_status() -> None:
    with _child(signal.pause) as (_, pidfd):
        assert processes.wait_status(pidfd) is None


def test_the_status_of_a_child_that_somebody_else_reaped_is_unknown_for_ever() -> None:
    with _child(lambda: None) as (pid, pidfd):
        os.waitpid(pid, 0)
        ended = processes.wait_status(pidfd)
        assert ended is not None
        assert ended.text == "unknown"


def test_a_dead_process_of_somebody_else_has_no_status_until_it_is_ours() -> None:
    """The middle process holds a dead grandchild; only its own end gives it to us."""
    script = f"""
import os, signal, sys
sys.path[:0] = {[str(Path(processes.__file__).parents[3])]!r}
from ajhost.adapters.linux import proc, processes
import select
processes.become_subreaper()
go_read, go_write = os.pipe()
pid_read, pid_write = os.pipe()
middle = os.fork()
if middle == 0:
    worker = os.fork()
    if worker == 0:
        os._exit(3)
    os.write(pid_write, str(worker).encode())
    os.read(go_read, 1)
    os._exit(0)
pidfd = os.pidfd_open(int(os.read(pid_read, 20)))
select.select([pidfd], [], [])
assert processes.wait_status(pidfd) is None
os.write(go_write, b"x")
os.waitpid(middle, 0)
ended = processes.wait_status(pidfd)
assert ended is not None
print(ended.text)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("exit status 3\n", "")


def test_stopping_stops_every_thread_and_resuming_lets_it_go_on() -> None:
    def act() -> None:
        threading.Thread(target=signal.pause, daemon=True).start()
        signal.pause()

    with _child(act) as (pid, pidfd):
        assert processes.stop(pidfd, pid, _LIMIT) is StopResult.STOPPED
        assert thread_states(pid) == {"T"}
        processes.resume(pidfd)
        os.waitid(os.P_PIDFD, pidfd, os.WCONTINUED)
        assert processes.stop(pidfd, pid, _LIMIT) is StopResult.STOPPED
        processes.resume(pidfd)


def test_a_process_that_somebody_stopped_is_told_from_one_that_we_stopped() -> None:
    with _child(signal.pause) as (pid, pidfd):
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PIDFD, pidfd, os.WSTOPPED | os.WNOWAIT)
        assert processes.stop(pidfd, pid, _LIMIT) is StopResult.ALREADY_STOPPED


@pytest.mark.parametrize("reaped", [False, True])
def test_a_dead_process_cannot_be_stopped(reaped: bool) -> None:
    with _child(lambda: None) as (pid, pidfd):
        _ended(pidfd)
        if reaped:
            processes.wait_status(pidfd)
        assert processes.stop(pidfd, pid, _LIMIT) is StopResult.GONE
        processes.resume(pidfd)


@contextmanager
def _stranger() -> Iterator[tuple[int, int, Path]]:
    """A process that is nobody's child here, as (pid, pidfd, a file that it has open as descriptor 9)."""
    script = """
import os, signal, sys, tempfile, threading
with tempfile.NamedTemporaryFile() as file:
    os.dup2(file.fileno(), 9)
    if pid := os.fork():
        print(pid, file.name, flush=True)
        sys.stdin.read()
    else:
        threading.Thread(target=signal.pause, daemon=True).start()
        signal.pause()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid, name = parent.stdout.readline().split()
        pidfd = os.pidfd_open(int(pid))
        try:
            yield int(pid), pidfd, Path(name)
        finally:
            processes.pidfd_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
            parent.communicate("")


def test_a_process_that_is_nobody_of_ours_is_stopped_as_well() -> None:
    """Its stop is told to its parent alone."""
    with _stranger() as (pid, pidfd, _):
        assert processes.stop(pidfd, pid, _LIMIT) is StopResult.STOPPED
        assert thread_states(pid) == {"T"}
        assert processes.stop(pidfd, pid, _LIMIT) is StopResult.ALREADY_STOPPED
        processes.resume(pidfd)
        assert not processes.has_ended(pidfd)
        processes.pidfd_signal(pidfd, signal.SIGTERM)  # nothing that is stopped dies of it
        _ended(pidfd)
        assert processes.has_ended(pidfd)
        assert processes.stop(pidfd, pid, _LIMIT) is StopResult.GONE


def test_a_process_that_waits_in_the_kernel_stands_still_until_it_is_resumed(tmp_path: Path) -> None:
    """It waits for what it spawns, which waits for somebody to write to a FIFO, and then it would end."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def act() -> None:
        threading.Thread(target=signal.pause, daemon=True).start()
        os.posix_spawn("/bin/true", ["true"], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 0, fifo, os.O_RDONLY, 0)])

    with _child(act) as (pid, pidfd):
        while thread_states(pid) != {"D", "S"}:
            os.sched_yield()
        assert processes.stop(pidfd, pid, 0.1) is StopResult.STOPPED
        assert thread_states(pid) == {"D", "T"}
        os.close(os.open(fifo, os.O_WRONLY))
        while thread_states(pid) != {"T"}:
            os.sched_yield()
        processes.resume(pidfd)
        _ended(pidfd)


def test_a_descriptor_of_another_process_is_duplicated() -> None:
    with _stranger() as (_, pidfd, file):
        file.write_bytes(b"there")
        try:
            duplicate = processes.pidfd_getfd(pidfd, 9)
        except PermissionError:
            pytest.skip("nobody but root may have descriptors of strangers here (kernel.yama.ptrace_scope)")
        assert os.pread(duplicate, 10, 0) == b"there"
        assert not os.get_inheritable(duplicate)
        os.close(duplicate)
        with pytest.raises(OSError, match="Bad file descriptor"):
            processes.pidfd_getfd(pidfd, 1000)


def test_what_a_session_leader_left_is_killed_with_its_session() -> None:
    read, write = os.pipe()

    def act() -> None:
        os.setsid()
        child = os.fork()
        if child == 0:
            signal.pause()
        os.write(write, str(child).encode())

    with _child(act) as (pid, pidfd):
        left = os.pidfd_open(int(os.read(read, 20)))
        _ended(pidfd)
        processes.wait_status(pidfd)
        processes.kill_session(pid, signal.SIGKILL)
        _ended(left)
        os.close(left)
        processes.kill_session(pid, signal.SIGKILL)
    os.close(read)
    os.close(write)


def test_the_oom_score_is_raised_to_the_limit_at_most() -> None:
    with _child(signal.pause) as (pid, _):
        score = Path(f"/proc/{pid}/oom_score_adj")
        before = int(score.read_text())
        processes.raise_oom_score(pid, 100)
        assert int(score.read_text()) == min(before + 100, 1000)
        processes.raise_oom_score(pid, 5000)
        assert int(score.read_text()) == 1000


def test_the_title_is_what_ps_shows() -> None:
    read, write = os.pipe()

    def act() -> None:
        processes.set_title("ajhost: worker 7")
        os.write(write, b"x")
        signal.pause()

    with _child(act) as (pid, _):
        os.read(read, 1)
        assert Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0") == b"ajhost: worker 7"
    os.close(read)
    os.close(write)


def test_a_child_dies_with_its_parent_when_it_asked_to() -> None:
    read, write = os.pipe()

    def act() -> None:
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            processes.die_with_parent(parent)
            os.write(write, str(os.getpid()).encode())
            signal.pause()
        signal.pause()

    with _child(act) as (_, pidfd):
        child = os.pidfd_open(int(os.read(read, 20)))
        try:
            processes.pidfd_signal(pidfd, signal.SIGKILL)
            _ended(child)
        finally:
            processes.pidfd_signal(child, signal.SIGKILL)
            os.close(child)
    os.close(read)
    os.close(write)


def test_a_child_whose_parent_is_gone_already_dies_at_once() -> None:
    with _child(lambda: processes.die_with_parent(1 << 22)) as (_, pidfd):
        _ended(pidfd)
        ended = processes.wait_status(pidfd)
        assert ended is not None
        assert ended.text == "SIGKILL"
