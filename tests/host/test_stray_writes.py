"""Stray writes of a handler's native code into what processes share: supervision goes on, honest requests are answered.

Each kind is done to workers that live, die and hang; several at once to different workers of one host.
"""

from __future__ import annotations

import asyncio
import mmap
import random
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ajhost.adapters.linux import ledger_file
from ajhost.ledger.layout import (
    CLAIMED,
    COUNTERS,
    DEADLINE,
    ENTRY_SIZE,
    ENTRY_WORDS,
    FIRST,
    FRAME,
    HEADER_SIZE,
    ORIGIN,
    ORIGIN_ENTRY,
    ORIGIN_SEQ,
    REASON_TEXT_AT,
    RECEIVED_NS,
    REVOKED,
    SERVER_TEXT_AT,
    SIZES,
    STARTED,
    TEXT,
    TOKEN_PLACES,
    Word,
)
from tests.support.factories import StartHost
from tests.support.host import Host
from tests.support.router import Router, Verdict
from tests.support.waiting import until

HANDLERS: dict[str, str | dict[str, object]] = {
    "echo": "echo",
    "work": "work",
    "block": {"target": "block_loop", "concurrency": 1},
}
Words = memoryview
ONES = (1 << 64) - 1
AT_ONCE = 6


def _entries(words: Words) -> list[int]:
    """The first words of the entries that were ever used, and of some that were not."""
    return [FIRST + index * ENTRY_WORDS for index in range(64)]


def states(words: Words) -> None:
    """States that there are not."""
    for word in _entries(words):
        words[word] |= 0x70


def sequences(words: Words) -> None:
    """Other numbers of the same requests."""
    for word in _entries(words):
        words[word] += 0x7F00


def texts(words: Words) -> None:
    """Sizes of texts beyond the file."""
    for word in _entries(words):
        words[word + SIZES] = ONES


def subjects(words: Words) -> None:
    """Reply subjects that are protocol lines, and wildcards."""
    data = words.cast("B")
    for number, word in enumerate(_entries(words)):
        text = (b"a\r\nPUB x 0\r\n\r\n", b"_INBOX.>", b"$JS.API.STREAM.DELETE.X", b"\xff\0\x1b[2J")[number % 4]
        at = word * 8 + TEXT
        data[at : at + len(text)] = text
    data.release()


def frames(words: Words) -> None:
    """Frames that lie nowhere."""
    for word in _entries(words):
        words[word + FRAME] = 0xFFFFFFF0_FFFFFFF0


def origins(words: Words) -> None:
    """Everything was pulled from an entry that its own ledger does not have."""
    for word in _entries(words):
        words[word + ORIGIN], words[word + ORIGIN_ENTRY] = words[Word.SERIAL], 1 << 50
        words[word + ORIGIN_SEQ] = words[word] >> 8


def deadlines(words: Words) -> None:
    """Deadlines past the end of the world."""
    for word in _entries(words):
        words[word + DEADLINE] = (1 << 62) + word


def times(words: Words) -> None:
    """Requests that come, and start, in the far future."""
    for word in _entries(words):
        words[word + RECEIVED_NS] = words[word + STARTED] = ONES


def fates(words: Words) -> None:
    """Everything is revoked, and claimed by somebody."""
    for word in _entries(words):
        words[word + REVOKED] = words[word + CLAIMED] = words[word] >> 8


def tokens(words: Words) -> None:
    """Tokens for entries that its own ledger does not have, and of a process that never was."""
    for place in range(TOKEN_PLACES):
        words[Word.TOKENS + 4 * place] = words[Word.SERIAL] if place % 2 else 77
        words[Word.TOKENS + 4 * place + 1] = 1 << 40


def positions(words: Words) -> None:
    """A receive buffer that cannot be."""
    words[Word.RECEIVED_POS], words[Word.PARSED_POS], words[Word.BASE] = 1 << 60, 1 << 61, 1 << 62


def words_of_life(words: Words) -> None:
    """A phase that there is not, a beat to come, more entries than there are, another state."""
    words[Word.PHASE], words[Word.HEARTBEAT] = 99, 1 << 63
    words[Word.HIGH_WATER], words[Word.WORKER_STATE] = 1 << 63, 999


def epochs(words: Words) -> None:
    """Another connection, of which another was taken over."""
    words[Word.EPOCH] += 7
    words[Word.FENCED_EPOCH], words[Word.DRAINED_EPOCH], words[Word.SUBSCRIBED] = ONES, 3, 1 << 40


def counters(words: Words) -> None:
    """Counters at their end."""
    for word in COUNTERS.values():
        words[word] = ONES
    words[Word.RECONNECTS] = words[Word.REFUSED_REPLIES] = ONES


def connection(words: Words) -> None:
    """A connection in no state, for no reason, to a server whose name is no text."""
    words[Word.CONNECTION] = words[Word.CONNECTION_REASON] = 12345
    words[Word.CONNECTION_SINCE] = words[Word.FAILED_ATTEMPTS] = words[Word.UNSUBSCRIBED_SINCE] = ONES
    words[Word.SOCKET], words[Word.SIZE_AT_START], words[Word.READING_PAUSED] = 1 << 40, ONES, 1
    for at in (SERVER_TEXT_AT, REASON_TEXT_AT):
        for word in range(at // 8, at // 8 + 32):
            words[word] = 0x1B_FF_C3_28_9F_0D_0A_80


def servers(words: Words) -> None:
    """What is known of the server, of its clock, and of the last log-in."""
    for word in (Word.SERVER, Word.BACK_BY, Word.WINDOW_OPENED, Word.CLOCK_AHEAD):
        words[word] = 1 << 62
    for gate in range(5):
        words[Word.LOGIN_GATE + gate] = ONES


def layout(words: Words) -> None:
    """A layout to come."""
    words[Word.LAYOUT] = 99


def geometry(words: Words) -> None:
    """Another file's sizes."""
    for word in (Word.MAGIC, Word.ENTRIES, Word.CHUNK_AT, Word.CHUNK_SIZE, Word.STORE_AT):
        words[word] = 3


def identity(words: Words) -> None:
    """Another process's ledger: the supervisor's, by its slot."""
    words[Word.SERIAL], words[Word.SLOT], words[Word.GENERATION], words[Word.PID] = 1, 0xFFFF, 1 << 40, 1


def anything(words: Words) -> None:
    """Bytes here and there."""
    chance = random.Random(7)
    for _ in range(4000):
        words[chance.randrange(6, HEADER_SIZE // 8 + 64 * ENTRY_WORDS)] ^= 1 << chance.randrange(64)


def ones(words: Words) -> None:
    """Nothing but ones, the whole file."""
    data = words.cast("B")
    data[:] = b"\xff" * len(data)
    data.release()


def zeros(words: Words) -> None:
    """Nothing, in header and entries."""
    data = words.cast("B")
    size = HEADER_SIZE + 512 * ENTRY_SIZE
    data[:size] = bytes(size)
    data.release()


WRITES: list[Callable[[Words], None]] = [
    *(states, sequences, texts, subjects, frames, origins),
    *(deadlines, times, fates, tokens, positions, words_of_life),
    *(epochs, counters, connection, servers, layout, geometry),
    *(identity, anything, ones, zeros),
]
GROUPS = [WRITES[at : at + AT_ONCE] for at in range(0, len(WRITES), AT_ONCE)]


@contextmanager
def ledger_words(path: Path) -> Iterator[Words]:
    """The words of a ledger, to be changed."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        words = memoryview(mapping).cast("B").cast("Q")
        try:
            yield words
        finally:
            words.release()


def ledger_of(host: Host, pid: int) -> Path:
    """The ledger of a worker."""
    directory = host.runtime / "ledger"
    for serial in ledger_file.serials(directory):
        path = ledger_file.path_of(directory, serial)
        with ledger_words(path) as words:
            if words[Word.PID] == pid:
                return path
    raise AssertionError(f"no ledger of {pid}")


def names(writes: list[Callable[[Words], None]]) -> str:
    return "+".join(write.__name__ for write in writes)


_FATES = [
    # each group of writes with each fate; a third of them always, every group and every fate among them
    pytest.param(writes, fate, id=f"{names(writes)}-{fate}", marks=[pytest.mark.long] * (turn != group % 3))
    for group, writes in enumerate(GROUPS)
    for turn, fate in enumerate(("dies", "hangs", "lives"))
]


def every_second(first: int) -> list[Any]:
    """The groups, of which every second runs always, from the `first` on."""
    return [
        pytest.param(writes, id=names(writes), marks=[pytest.mark.long] * ((number + first) % 2))
        for number, writes in enumerate(GROUPS)
    ]


async def hang(host: Host, router: Router, count: int) -> list[int]:
    """So many workers hang, each in a task; their slots."""
    for _ in range(count):
        await router.send("block", {"block_ms": 60_000}, deadline=4)
    slots: list[int] = []
    for number in range(count):
        await until(lambda number=number: len(host.output.having(" hangs: ")) > number, 10.0)  # type: ignore[misc]
        found = re.search(r"worker (\d+)", host.output.having(" hangs: ")[number].text)
        assert found is not None
        slots.append(int(found[1]))
    return slots


@pytest.mark.parametrize(("writes", "fate"), _FATES)
async def test_stray_writes_end_neither_supervision_nor_service(
    start_host: StartHost, router: Router, writes: list[Callable[[Words], None]], fate: str
) -> None:
    workers = {"count": len(writes) + 1, "kill_grace": 0.3}
    host = await start_host(handlers=HANDLERS, sections={"workers": workers})
    before = host.workers()
    ledgers = {slot: ledger_of(host, pid) for slot, pid in before.items()}
    busy = [await router.send("work", {"sleep_ms": 1000}, deadline=6) for _ in range(5 * len(before))]
    await host.running(len(busy))
    slots = await hang(host, router, len(writes)) if fate == "hangs" else list(range(len(writes)))
    for slot, write in zip(slots, writes, strict=True):
        with ledger_words(ledgers[slot]) as words:
            write(words)
    if fate == "dies":
        for slot in slots:
            host.kill(slot)
    if fate != "lives":
        for slot in slots:
            await host.refilled(slot, before[slot])
    async with asyncio.timeout(10):  # what those bytes belonged to may be lost, and nothing else
        await router.settled(busy)
    # all that comes later is served
    async with router.load("work", {"sleep_ms": 2}, rate=100, deadline=5) as load:
        await load.sent(100)
    report = load.report()
    if fate != "lives":
        assert report.verdicts == {Verdict.COMPLETE: len(report.requests)}, report
    else:
        assert not report.no_responders, report
    assert (await host.command("status")).status in (0, 1)
    # and supervision goes on: the next deaths are noticed, and replaced
    present = host.workers()
    left = [slot for slot in before if slot not in slots or fate == "lives"]
    for slot in left:
        host.kill(slot)
    for slot in left:
        await host.refilled(slot, present[slot])
    async with router.load("echo", b"alive", rate=200, deadline=5) as load:
        await load.sent(50)
    report = load.report()
    assert report.verdicts == {Verdict.COMPLETE: len(report.requests)}, report
    assert not host.output.having("Traceback"), host.log_text()


@pytest.mark.parametrize("write", [ones, zeros])
async def test_a_worker_whose_ledger_was_written_over_goes_on_with_its_connection(
    start_host: StartHost, router: Router, write: Callable[[Words], None]
) -> None:
    host = await start_host(handlers={"work": "work"}, sections={"workers": {"count": 1}})
    (pid,) = host.workers().values()
    with ledger_words(ledger_of(host, pid)) as words:
        write(words)
    async with router.load("work", {"sleep_ms": 2}, rate=200, deadline=5) as load:
        await load.sent(100)
    report = load.report()
    assert report.verdicts == {Verdict.COMPLETE: len(report.requests)}, report
    assert list(host.workers().values()) == [pid]


@pytest.mark.parametrize("writes", every_second(0))
async def test_stray_writes_do_not_keep_the_next_start_from_serving(
    start_host: StartHost, router: Router, writes: list[Callable[[Words], None]]
) -> None:
    host = await start_host(handlers=HANDLERS, sections={"workers": {"count": len(writes)}})
    for _ in range(4 * len(writes)):
        await router.send("work", {"sleep_ms": 60_000}, deadline=3)
    await host.running(4 * len(writes))
    host.signal_all(signal.SIGSTOP)
    for pid, write in zip(host.workers().values(), writes, strict=True):
        with ledger_words(ledger_of(host, pid)) as words:
            write(words)
    host.signal_all()
    await host.wait()
    await host.restart()
    assert (await router.request("echo", b"alive")).body == b"alive"
    served = host.workers()
    host.kill(0)
    await host.refilled(0, served[0])


@pytest.mark.parametrize("writes", every_second(1))
async def test_stray_writes_in_the_supervisors_ledger_end_neither_supervision_nor_service(
    start_host: StartHost, router: Router, writes: list[Callable[[Words], None]]
) -> None:
    workers = {"count": len(writes), "kill_grace": 0.3}
    host = await start_host(handlers=HANDLERS, sections={"workers": workers})
    before, own = host.workers(), ledger_of(host, host.pid)
    # workers have it mapped as well
    for slot, write in enumerate(writes):
        with ledger_words(own) as words:
            write(words)
        host.kill(slot)
    for slot in before:
        await host.refilled(slot, before[slot])
    async with router.load("echo", b"alive", rate=200, deadline=5) as load:
        await load.sent(100)
    report = load.report()
    assert report.verdicts == {Verdict.COMPLETE: len(report.requests)}, report
    assert (await host.command("status")).status == 0
    hanging = (await hang(host, router, 1))[0]
    old = host.workers()[hanging]
    await host.refilled(hanging, old)
