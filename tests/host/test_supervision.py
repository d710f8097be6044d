"""Nothing ends supervision: no wild byte in a ledger, no want of descriptors, no system call that is refused."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import random
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from ajhost.adapters.linux import ledger_file
from ajhost.ledger.layout import (
    ENTRY_WORDS,
    FIRST,
    FRAME,
    HEADER_SIZE,
    ORIGIN,
    ORIGIN_ENTRY,
    ORIGIN_SEQ,
    SIZES,
    TOKEN_PLACES,
    Word,
)
from tests.support import processes
from tests.support.host import Host
from tests.support.host_parts import until
from tests.support.nats import NatsServer
from tests.support.router import Router, Verdict

HANDLERS = {"echo": "echo", "work": "work", "block": "block_loop"}
Words = memoryview


def _entries(words: Words) -> list[int]:
    """The first words of the entries that were ever used, and of some that were not."""
    return [FIRST + index * ENTRY_WORDS for index in range(64)]


def states(words: Words) -> None:
    """States that there are not."""
    for word in _entries(words):
        words[word] |= 0x70


def texts(words: Words) -> None:
    """Sizes of texts beyond the file."""
    for word in _entries(words):
        words[word + SIZES] = (1 << 64) - 1


def frames(words: Words) -> None:
    """Frames that lie nowhere."""
    for word in _entries(words):
        words[word + FRAME] = 0xFFFFFFF0_FFFFFFF0


def origins(words: Words) -> None:
    """Everything was pulled from an entry that its own ledger does not have."""
    for word in _entries(words):
        words[word + ORIGIN], words[word + ORIGIN_ENTRY] = words[Word.SERIAL], 1 << 50
        words[word + ORIGIN_SEQ] = words[word] >> 8


def tokens(words: Words) -> None:
    """Tokens for entries that its own ledger does not have, and of a process that never was."""
    for place in range(TOKEN_PLACES):
        words[Word.TOKENS + 4 * place] = words[Word.SERIAL] if place % 2 else 77
        words[Word.TOKENS + 4 * place + 1] = 1 << 40


def positions(words: Words) -> None:
    """A chunk that cannot be."""
    words[Word.RECEIVED_POS], words[Word.PARSED_POS], words[Word.BASE] = 1 << 60, 1 << 61, 1 << 62


def words_of_life(words: Words) -> None:
    """A phase that there is not, a beat to come, another epoch, more entries than there are."""
    words[Word.PHASE], words[Word.HEARTBEAT] = 99, 1 << 63
    words[Word.EPOCH] += 7
    words[Word.HIGH_WATER] = 1 << 63


def geometry(words: Words) -> None:
    """Another file's sizes."""
    for word in (Word.MAGIC, Word.LAYOUT, Word.ENTRIES, Word.CHUNK_AT, Word.CHUNK_SIZE, Word.STORE_AT):
        words[word] = 3


def anything(words: Words) -> None:
    """Bytes here and there."""
    chance = random.Random(7)
    for _ in range(4000):
        words[chance.randrange(6, HEADER_SIZE // 8 + 64 * ENTRY_WORDS)] ^= 1 << chance.randrange(64)


SCRIBBLES = [states, texts, frames, origins, tokens, positions, words_of_life, geometry, anything]


def scribble(host: Host, pid: int, change: Callable[[Words], None]) -> None:
    """Changes the ledger of a worker, as its handler's native code might."""
    directory = host.runtime / "ledger"
    for serial in ledger_file.serials(directory):
        with (
            open(ledger_file.path_of(directory, serial), "r+b") as file,
            mmap.mmap(file.fileno(), 0) as mapping,
        ):
            words = memoryview(mapping).cast("Q")
            try:
                if words[Word.PID] == pid:
                    change(words)
                    return
            finally:
                words.release()
    raise AssertionError(f"no ledger of {pid}")


async def refilled(host: Host, slot: int, old: int) -> None:
    """Returns when the slot has another worker that serves."""
    new = old

    def replaced() -> bool:
        nonlocal new
        new = host.workers().get(slot, old)
        return new != old

    await until(replaced, 15.0)
    await host.log(f"worker {slot} (pid {new}) serves")


@pytest.mark.parametrize("fate", ["dies", "hangs", "lives"])
@pytest.mark.parametrize("change", SCRIBBLES, ids=lambda change: change.__name__)
async def test_a_wild_byte_in_a_ledger_never_ends_supervision(
    nats_server: NatsServer, tmp_path: Path, change: Callable[[Words], None], fate: str
) -> None:
    async with (
        Host(
            tmp_path, nats=nats_server.url, handlers=HANDLERS, sections={"workers": {"kill_grace": 0.3}}
        ) as host,
        Router(nats_server.url) as router,
    ):
        before = host.workers()
        busy = [await router.send("work", {"sleep_ms": 1500}, deadline=5) for _ in range(8)]
        if fate == "hangs":
            busy.append(await router.send("block", {"block_ms": 60_000}, deadline=3))
            slot = int((await host.log("hangs")).text.split("worker ")[1].split()[0])
        else:
            await host.running(8)
            slot = 0
        scribble(host, before[slot], change)
        if fate == "dies":
            host.kill(slot)
        if fate != "lives":
            await refilled(host, slot, before[slot])
        for request in busy:
            with contextlib.suppress(AssertionError):
                await router.reply(request)
        # whatever is lost with those bytes, all that comes later is served, by both slots
        async with router.load("work", {"sleep_ms": 2}, rate=100, deadline=5) as load:
            await load.sent(100)
        report = load.report()
        if fate == "lives":
            assert not report.no_responders, report
        else:
            assert report.verdicts == {Verdict.COMPLETE: len(report.requests)}, report
        assert (await host.command("status")).status in (0, 1)
        # and the supervisor goes on: the next death is noticed, and replaced
        other = host.workers()[1 - slot]
        host.kill(1 - slot)
        await refilled(host, 1 - slot, other)
        assert (await router.request("echo", b"alive")).body == b"alive"


@pytest.mark.parametrize("change", SCRIBBLES, ids=lambda change: change.__name__)
async def test_a_wild_byte_in_a_ledger_does_not_keep_the_next_start_from_serving(
    nats_server: NatsServer, tmp_path: Path, change: Callable[[Words], None]
) -> None:
    async with (
        Host(tmp_path, nats=nats_server.url, handlers=HANDLERS) as host,
        Router(nats_server.url) as router,
    ):
        for _ in range(8):
            await router.send("work", {"sleep_ms": 60_000}, deadline=3)
        await host.running(8)
        for process in host.all_processes():
            processes.send(process.pid, signal.SIGSTOP)
        for pid in host.workers().values():
            scribble(host, pid, change)
        for process in host.all_processes():
            processes.send(process.pid, signal.SIGKILL)
        await host.wait()
        await host.restart()
        assert (await router.request("echo", b"alive")).body == b"alive"
        served = host.workers()
        host.kill(0)
        await refilled(host, 0, served[0])


@contextlib.contextmanager
def no_descriptors(pid: int) -> Iterator[None]:
    """The process cannot open anything more, for as long."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


async def test_three_seconds_without_a_descriptor_end_nothing(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    async with (
        Host(
            tmp_path, nats=nats_server.url, handlers=HANDLERS, sections={"workers": {"kill_grace": 0.3}}
        ) as host,
        Router(nats_server.url) as router,
    ):
        before = host.workers()
        async with router.load("work", {"sleep_ms": 2}, rate=100, deadline=10) as load:
            with no_descriptors(host.pid):
                host.kill(0)
                await load.sent(300)
            await refilled(host, 0, before[0])
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


class Restricted(Host):
    """A host that may not signal by pidfd."""

    async def _execute(
        self, output: int, notify: str, launcher: Sequence[str] = (), pass_fds: Sequence[int] = ()
    ) -> asyncio.subprocess.Process:
        launcher = (sys.executable, "-c", REFUSES, str(_PIDFD_SEND_SIGNAL))
        return await super()._execute(output, notify, launcher, pass_fds)


async def test_without_pidfd_send_signal_hanging_and_dead_workers_are_replaced(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    async with (
        Restricted(
            tmp_path, nats=nats_server.url, handlers=HANDLERS, sections={"workers": {"kill_grace": 0.3}}
        ) as host,
        Router(nats_server.url) as router,
    ):
        for _ in range(2):
            before = set(host.workers().values())
            hanging = await router.send("block", {"block_ms": 60_000}, deadline=3)
            assert (await router.reply(hanging)).word == "deadline exceeded:"
            await until(lambda: before - set(host.workers().values()))  # noqa: B023 - within this turn
            await until(lambda: len(host.workers()) == 2)
        assert host.output.having("block_loop")
        served = host.workers()
        host.kill(1)
        await refilled(host, 1, served[1])
        assert (await router.request("echo", b"alive")).body == b"alive"
        processes.send(served[0], signal.SIGTERM)
        await refilled(host, 0, served[0])
