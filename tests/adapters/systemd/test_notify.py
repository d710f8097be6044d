"""The notifier against a socket that plays PID 1: what arrives, with which descriptors, and what a busy PID 1 costs."""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from ajhost.adapters.systemd.notify import Notifier
from tests.support.notify_socket import NotifySocket

MANAGER = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


@pytest.fixture(autouse=True)
def no_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's own environment says nothing of a service manager."""
    for name in MANAGER:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NotifySocket]:
    """Who listens to `$NOTIFY_SOCKET`."""
    listening = NotifySocket(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(listening.path))
    yield listening
    listening.close()


@pytest.fixture
def deaf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A manager that does not read until the test does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listening:
        listening.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


@pytest.fixture
def notifiers() -> Iterator[Callable[[], Notifier]]:
    """Makes notifiers, and closes them."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(contextlib.closing(Notifier()))


def read_all(listening: socket.socket) -> list[tuple[dict[str, str], list[int]]]:
    """The messages that wait, with their descriptors."""
    found: list[tuple[dict[str, str], list[int]]] = []
    while True:
        try:
            data, ancillary, _, _ = listening.recvmsg(65536, 4096, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return found
        descriptors = array.array("i")
        for _, _, value in ancillary:
            descriptors.frombytes(value)
        found.append((dict(line.split("=", 1) for line in data.decode().splitlines()), list(descriptors)))


async def test_ready_status_reload_and_stop_say_what_systemd_reads(
    manager: NotifySocket, notifiers: Callable[[], Notifier]
) -> None:
    notifier = notifiers()
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.ready("2 of 2 workers serve")
    notifier.status("two\nlines")
    notifier.reloading()
    notifier.extend(1.5)
    notifier.stopping("draining")
    await manager.next("STOPPING")
    assert [message.fields for message in manager.received if "MONOTONIC_USEC" not in message.fields] == [
        {"READY": "1", "STATUS": "2 of 2 workers serve"},
        {"STATUS": "two lines"},
        {"EXTEND_TIMEOUT_USEC": "1500000"},
        {"STOPPING": "1", "STATUS": "draining"},
    ]
    (reload,) = manager.having("RELOADING")
    assert before <= int(reload.fields["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert {message.pid for message in manager.received} == {os.getpid()}


async def test_the_manager_variables_leave_the_environment(
    manager: NotifySocket, monkeypatch: pytest.MonkeyPatch, notifiers: Callable[[], Notifier]
) -> None:
    for name in MANAGER[1:]:
        monkeypatch.setenv(name, "1")
    notifiers()
    assert not set(MANAGER) & set(os.environ)
    seen = subprocess.run(["/usr/bin/env"], capture_output=True, text=True, check=True).stdout
    assert not [name for name in MANAGER if f"{name}=" in seen]


async def test_a_socket_is_stored_by_name_without_polling_and_forgotten(
    deaf: socket.socket, notifiers: Callable[[], Notifier]
) -> None:
    notifier = notifiers()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        notifier.store("worker-1", ours.fileno())
        notifier.forget("worker-1")
        (stored, descriptors), (removed, nothing) = read_all(deaf)
        assert stored == {"FDSTORE": "1", "FDPOLL": "0", "FDNAME": "worker-1"}
        assert removed == {"FDSTOREREMOVE": "1", "FDNAME": "worker-1"}
        assert nothing == []
        with socket.socket(fileno=descriptors[0]) as kept:
            kept.send(b"same socket")
            assert theirs.recv(20) == b"same socket"


def test_what_an_earlier_start_stored_is_found_by_name(tmp_path: Path) -> None:
    left, right = os.pipe(), os.pipe()
    program = (
        "import os\n"
        "os.environ['LISTEN_PID'] = str(os.getpid())\n"
        "os.dup2(int(os.environ['A']), 3); os.dup2(int(os.environ['B']), 4)\n"
        "from ajhost.adapters.systemd.notify import Notifier\n"
        "notifier = Notifier()\n"
        "print(notifier.stored(), [os.get_inheritable(fd) for _, fd in notifier.stored()])\n"
        "print('LISTEN_FDS' in os.environ)\n"
    )
    environment = {
        **os.environ,
        "LISTEN_FDS": "2",
        "LISTEN_FDNAMES": "worker-1:worker-2",
        "PYTHONPATH": str(Path(__file__).parents[3] / "daemon"),
        "A": str(left[0]),
        "B": str(right[0]),
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        pass_fds=(left[0], right[0]),
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    for fd in (*left, *right):
        os.close(fd)
    assert done.stdout.splitlines() == ["[('worker-1', 3), ('worker-2', 4)] [False, False]", "False"]


def test_descriptors_that_were_meant_for_another_process_are_not_taken(
    monkeypatch: pytest.MonkeyPatch, notifiers: Callable[[], Notifier]
) -> None:
    monkeypatch.setenv("LISTEN_FDS", "2")
    monkeypatch.setenv("LISTEN_PID", "1")
    assert notifiers().stored() == []


async def test_the_watchdog_is_fed_at_most_twice_per_interval(
    manager: NotifySocket, monkeypatch: pytest.MonkeyPatch, notifiers: Callable[[], Notifier]
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    notifier = notifiers()
    while len(manager.having("WATCHDOG")) < 4:
        notifier.watchdog()
        await asyncio.sleep(0.002)
    pings = manager.having("WATCHDOG")
    assert pings[3].at - pings[0].at > 0.29, "three times half of the interval"


@pytest.mark.parametrize(("usec", "pid"), [("0", "self"), ("many", "self"), ("200000", "1"), (None, "self")], ids=str)
async def test_without_a_watchdog_for_this_process_nothing_is_sent(
    manager: NotifySocket,
    monkeypatch: pytest.MonkeyPatch,
    notifiers: Callable[[], Notifier],
    usec: str | None,
    pid: str,
) -> None:
    if usec is not None:
        monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "self" else pid)
    notifier = notifiers()
    notifier.watchdog()
    notifier.status("still here")
    await manager.next("STATUS")
    assert not manager.having("WATCHDOG")


async def test_a_busy_manager_delays_nobody_and_misses_nothing_that_matters(
    deaf: socket.socket, monkeypatch: pytest.MonkeyPatch, notifiers: Callable[[], Notifier]
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    notifier = notifiers()
    ours, theirs = socket.socketpair()
    with theirs:  # nobody reads before this has ended: a notifier that waits for it waits for ever
        for number in range(2000):
            notifier.store(f"worker-{number}", theirs.fileno())
            notifier.status(f"{number} stored")
    got: list[tuple[dict[str, str], list[int]]] = []
    while new := read_all(deaf):
        got += new
        notifier.watchdog()
    names = [fields["FDNAME"] for fields, _ in got if "FDSTORE" in fields]
    assert names == [f"worker-{number}" for number in range(2000)]
    statuses = [fields["STATUS"] for fields, _ in got if "STATUS" in fields]
    assert statuses[-1] == "1999 stored"
    assert len(statuses) < 2000, "statuses that nobody could see any more were not sent"
    for _, descriptors in got:
        for descriptor in descriptors:
            os.close(descriptor)
    ours.setblocking(False)
    assert ours.recv(1) == b"", "no duplicate of a stored socket stays open here"
    ours.close()


async def test_without_systemd_everything_is_silence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, notifiers: Callable[[], Notifier]
) -> None:
    for address in (None, str(tmp_path / "nobody"), "@ajhost-nobody-listens"):
        if address is not None:
            monkeypatch.setenv("NOTIFY_SOCKET", address)
        notifier = notifiers()
        notifier.ready("ready")
        notifier.store("worker-1", 0)
        notifier.store("worker-2", 9999)
        notifier.forget("worker-1")
        notifier.watchdog()
        assert notifier.stored() == []
