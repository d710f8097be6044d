"""Nothing ends supervision: no want of descriptors, no system call that is refused."""

from __future__ import annotations

import contextlib
import platform
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.factories import Enter, StartHost
from tests.support.host import Host
from tests.support.nats import NatsServer
from tests.support.router import Router
from tests.support.waiting import until

HANDLERS = {"echo": "echo", "work": "work", "block": "block_loop"}


@contextlib.contextmanager
def no_descriptors(pid: int) -> Iterator[None]:
    """The process cannot open anything more, for as long."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


async def test_three_seconds_without_a_descriptor_end_nothing(start_host: StartHost, router: Router) -> None:
    host = await start_host(handlers=HANDLERS, sections={"workers": {"kill_grace": 0.3}})
    before = host.workers()
    async with router.load("work", {"sleep_ms": 2}, rate=100, deadline=10) as load:
        with no_descriptors(host.pid):
            host.kill(0)
            await load.sent(300)
        await host.refilled(0, before[0])
        await load.sent(100)
        # what comes after it is as before it
        hanging = await router.send("block", {"block_ms": 60_000}, deadline=3)
        assert (await router.reply(hanging)).word == "deadline exceeded:"
        await host.log("died: SIGKILL", since=len(host.output.having("")) - 1)
        await until(lambda: len(host.workers()) == 2)
    report = load.report()
    assert not report.silent, report
    assert not report.no_responders, report
    assert len(host.output.having("supervision")) < 50, host.log_text()


REFUSES = """
import ctypes, os, sys
# struct sock_filter, struct sock_fprog (linux/filter.h): this system call is EPERM, every other one allowed
number = int(sys.argv[1])
class Filter(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint)]
class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.POINTER(Filter))]
filters = (Filter * 4)((0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000))
program = Program(4, filters)
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, ctypes.byref(program)) == 0, os.strerror(ctypes.get_errno())  # PR_SET_SECCOMP
os.execvp(sys.argv[2], sys.argv[2:])
"""
_PIDFD_SEND_SIGNAL = 424
"""asm-generic/unistd.h, the same on every architecture."""
_GETSOCKOPT = {"x86_64": 55, "aarch64": 209}.get(platform.machine(), 0)


class Restricted(Host):
    """A host that may not make one system call; by default signal by pidfd."""

    launcher = (sys.executable, "-c", REFUSES, str(_PIDFD_SEND_SIGNAL))


async def test_without_pidfd_send_signal_hanging_and_dead_workers_are_replaced(
    nats_server: NatsServer, tmp_path: Path, enter: Enter, router: Router
) -> None:
    host = await enter(
        Restricted(tmp_path, nats=nats_server.url, handlers=HANDLERS, sections={"workers": {"kill_grace": 0.3}})
    )
    for _ in range(2):
        before = set(host.workers().values())
        hanging = await router.send("block", {"block_ms": 60_000}, deadline=3)
        assert (await router.reply(hanging)).word == "deadline exceeded:"
        await until(lambda: before - set(host.workers().values()))  # noqa: B023 - within this turn
        await until(lambda: len(host.workers()) == 2)
    assert host.output.having("block_loop")
    served = host.workers()
    host.kill(1)
    await host.refilled(1, served[1])
    assert (await router.request("echo", b"alive")).body == b"alive"
    processes.send(served[0], signal.SIGTERM)
    await host.refilled(0, served[0])


@pytest.mark.skipif(not _GETSOCKOPT, reason="the number of getsockopt(2) is not known here")
async def test_a_sandbox_in_which_nothing_could_be_recovered_is_told_at_the_start(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    host = Restricted(tmp_path, nats=nats_server.url, handlers=HANDLERS)
    host.launcher = (sys.executable, "-c", REFUSES, str(_GETSOCKOPT))
    try:
        assert await host.run_to_end() == 70
        assert "Traceback" not in host.log_text()
        last = host.output.lines[-1].text
        assert "cannot start: sock.getsockopt(" in last
        assert "Operation not permitted (a seccomp filter" in last
    finally:
        await host.destroy()
